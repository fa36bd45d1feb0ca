"""Edits of code. What changes the outcome must miss; what a reader alone notices must hit."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.engine.mutations.project import Apply, Edit, append, built_again, release, replace, together


def _miss(task: str, name: str, *edits: Apply, shows: bool = True) -> Edit:
    return Edit(name, "miss", task, together(*edits), shows)


def _hit(task: str, name: str, *edits: Apply) -> Edit:
    return Edit(name, "hit", task, together(*edits))


FUNCTIONS = [
    ("text in the task itself", replace("tasks.py", "in all", "altogether")),
    ("call in the task itself", replace("tasks.py", "functions.walrus(n),", "functions.walrus(n + 1),")),
    ("another function called by the task", replace("tasks.py", "STEPS[0](n)", "STEPS[1](n)")),
    ("generator in the task itself", replace("tasks.py", "len(str(one)) for", "2 * len(str(one)) for")),
    ("import of the task", replace("tasks.py", "import price as price_of", "import tax as price_of")),
    ("helper one call away", replace("functions.py", "return n + 2", "return n + 20")),
    ("helper two calls away, in another module", replace("deep.py", "n * 31", "n * 32")),
    ("operator", replace("functions.py", "subtotal = n * 10", "subtotal = n + 10")),
    ("default argument", replace("functions.py", "by: int = 5", "by: int = 50")),
    ("default of a keyword", replace("functions.py", "offset: int = 6", "offset: int = 60")),
    ("closure value", replace("functions.py", "tripled = times(3)", "tripled = times(30)")),
    ("body of a closure", replace("functions.py", "return n * factor", "return n * factor + 1")),
    ("decorator", replace("wrappers.py", "return 2 * function(n)", "return 3 * function(n)")),
    ("decorator removed", replace("functions.py", "@doubled\n", "")),
    ("argument of a decorator", replace("functions.py", "@scaled(by=7)", "@scaled(by=8)")),
    ("wrapper made with functools.wraps", replace("wrappers.py", 'f"<{', 'f"<<{')),
    ("function behind a wrapper", replace("functions.py", 'f"wrapped {n}"', 'f"wrapped: {n}"')),
    ("lambda in a dict", replace("functions.py", "n + 11,", "n + 12,")),
    ("table of functions", replace("functions.py", "[_first, _second]", "[_second, _first]")),
    ("function in a table", replace("functions.py", "return n - 1", "return n - 10")),
    ("argument of a partial", replace("functions.py", "n / by, 2)", "n / by, 4)")),
    ("string in a comprehension", replace("functions.py", 'f"item {i}"', 'f"piece {i}"')),
    ("condition of a comprehension", replace("functions.py", "i % 2 == 0", "i % 2 == 1")),
    ("generator expression", replace("functions.py", "sum(i * 4", "sum(i * 5")),
    ("nested function", replace("functions.py", "m * 13", "m * 14")),
    ("pattern of a match", replace("functions.py", "case (0, _)", "case (4, _)")),
    ("type of a caught exception", replace("functions.py", "except KeyError", "except TypeError")),
    ("walrus", replace("functions.py", "(m := n * 2) > 3", "(m := n * 3) > 3")),
    ("starred target", replace("functions.py", "first, *rest = range(n)", "*rest, first = range(n)")),
    ("body of an async function", replace("functions.py", "n + 17", "n + 18")),
    ("global behind an lru_cache", replace("deep.py", "SURCHARGE = 29", "SURCHARGE = 30")),
    ("implementation of a singledispatch", replace("functions.py", "n + 19", "n + 20")),
    ("implementation by annotation", replace("functions.py", "len(n) + 23", "len(n) + 24")),
    ("type that a singledispatch serves", replace("functions.py", "def _(n: int)", "def _(n: float)")),
    ("condition of a loop", replace("functions.py", "(n > 10 and", "(n > 20 and")),
    (
        "name imported from elsewhere",
        together(
            append("deep.py", "\n\ndef costs(n: int) -> int:\n    return -n\n"),
            replace("functions.py", "import fee, join", "import costs as fee, join"),
        ),
    ),
    (
        "import under another name",
        replace("functions.py", "import fee, join", "import untouched as fee, join"),
    ),
]

WIDE = "class Wide(Shape):\n    margin = 2\n\n\nclass Square(Wide):"
CLASSES = [
    ("method", replace("classes.py", "self.side * self.side", "self.side * self.side * 2")),
    ("property", replace("classes.py", "return 4 * self.side", "return 40 * self.side")),
    ("classmethod", replace("classes.py", "return cls(1)", "return cls(10)")),
    ("staticmethod of a class with slots", replace("classes.py", "return 37", "return 38")),
    ("base class", replace("classes.py", 'f"shape of', 'f"shape with')),
    ("attribute of a base class", replace("classes.py", "margin = 1", "margin = 10")),
    ("attribute of a class", replace("classes.py", 'name = "square"', 'name = "cube"')),
    ("metaclass", replace("classes.py", 'f"kind of {name}"', 'f"sort of {name}"')),
    ("another base", replace("classes.py", "class Square(Shape):", WIDE)),
    ("value of an enum member", replace("specs.py", 'RED = "red"', 'RED = "crimson"')),
    ("method of an enum", replace("specs.py", 'f"dark', 'f"light')),
    ("default of a dataclass", replace("specs.py", "size: int = 2", "size: int = 20")),
    ("default factory of a dataclass", replace("specs.py", '["new"]', '["old"]')),
    ("method of a dataclass", replace("specs.py", "2 * self.size", "3 * self.size")),
    ("bound of a pydantic field", replace("specs.py", "lt=100", "lt=4")),
    (
        "annotation of a pydantic field",
        replace("specs.py", "share: float | None", "share: str | float | None"),
        False,
    ),
    ("default of a pydantic field", replace("specs.py", "= 1\n    note", "= 2\n    note")),
    ("default factory of a pydantic field", replace("specs.py", "[Line()])", "[Line(), Line()])")),
    ("model in a field of a model", replace("specs.py", "pieces: int = 3", "pieces: int = 4")),
    ("validator of a pydantic model", replace("specs.py", "amount % 2 + 2", "amount % 2 + 4")),
    ("function in an annotation", replace("specs.py", "text.strip()", "text.strip().lower()")),
    ("method of a parameter's class", replace("specs.py", "self.amount * 41", "self.amount * 42")),
    ("default of the task", replace("tasks.py", "Basket()", "Basket(size=5)")),
    ("class in a default", replace("rules.py", "ceiling = 43", "ceiling = 44")),
]

VALUES = [
    ("global constant", replace("values.py", "RATE = 3", "RATE = 4")),
    ("type of a constant", replace("values.py", "RATE = 3", "RATE = 3.0")),
    ("constant tuple", replace("values.py", '"small", "large"', '"small", "huge"')),
    ("deep in a table", replace("values.py", "[2, 3]}", "[2, 4]}")),
    ("set constant", replace("values.py", "{2, 3, 5}", "{2, 4, 5}")),
    ("regular expression", replace("values.py", "[a-z]+", "[a-z]{2}")),
    ("state of an instance", replace("values.py", "Meter(59)", "Meter(60)")),
    ("namespace", replace("values.py", "level=4", "level=5")),
    ("keyword of a partial", replace("values.py", "ndigits=2", "ndigits=3")),
    ("itemgetter", replace("values.py", 'itemgetter("size")', 'itemgetter("colour")')),
    ("duration", replace("values.py", "seconds=53", "seconds=54")),
    ("decimal", replace("values.py", '"5.90"', '"5.9"')),
    ("array", replace("values.py", "[1.5, 2.5]", "[1.5, 2.75]")),
    ("type of an array", replace("values.py", "[1.5, 2.5])", "[1.5, 2.5], dtype=np.float32)"), False),
    ("attribute by a constant name", replace("values.py", "HIDDEN = 47", "HIDDEN = 49")),
    ("version of an imported package", release("parcels", "1.1"), False),
    (
        "same version of a package, built again",
        built_again("parcels", "def weigh(n: int) -> int:\n    return n * 1001\n"),
    ),
    ("version of a package that it requires", release("boxes", "2.1"), False),
]

KINDS = [
    ("names of keywords in a call", replace("tasks.py", "first=1, second=2", "second=1, first=2")),
    (
        "local variables asked for by name",
        replace("kinds.py", "inner = 1\n    outer = 2", "outer = 1\n    inner = 2"),
    ),
    ("method of a set", replace("kinds.py", "return n in self", "return n not in self")),
    ("method of a path", replace("kinds.py", '"below"', '"beside"')),
    ("class of a property", replace("kinds.py", "return 2 * super", "return 3 * super")),
    ("class of a partial", replace("kinds.py", "return -1 * super", "return -2 * super")),
    ("class attribute with underscores around", replace("kinds.py", "__rate__ = 107", "__rate__ = 108")),
    ("length of a deque", replace("kinds.py", "maxlen=5", "maxlen=6")),
    ("layer of a ChainMap", replace("kinds.py", '{"a": 2}', '{"a": 3}')),
    ("value under a mask", replace("kinds.py", "array([1, 2], mask=[0, 1])", "array([1, 3], mask=[0, 1])")),
    ("default in a class that is made", replace("kinds.py", "default=167", "default=168")),
    ("attribute of a number", replace("kinds.py", '"chf"', '"eur"')),
    (
        "annotation of a typed dict",
        replace("live.py", "Parcel(TypedDict):\n    size: int", "Parcel(TypedDict):\n    size: str"),
    ),
    (
        "annotation of a dataclass",
        replace("live.py", "class Crate:\n    size: int", "class Crate:\n    size: str"),
    ),
    ("configuration of a pydantic dataclass", replace("live.py", "str_to_lower", "str_to_upper")),
    (
        "field of a validator of a dataclass",
        replace("live.py", 'field_validator("count"', 'field_validator("other"'),
    ),
    ("default of an attrs class", replace("live.py", "height: int = 1", "height: int = 3")),
    ("converter of an attrs class", replace("live.py", "width + 1", "width + 2")),
    ("whether a field is shown", replace("live.py", "repr=True", "repr=False")),
    ("computed field", replace("live.py", "self.name.upper()", "self.name.title()")),
    (
        "bound in an annotation",
        replace(
            "live.py",
            "text: Annotated[str, StringConstraints(to_lower",
            "text: Annotated[str, StringConstraints(to_upper",
        ),
    ),
    ("class in a quoted annotation", replace("live.py", "return 103", "return 104")),
    ("function put into the standard library", replace("patches.py", "{text}!", "{text}?")),
    ("method put into a class of it", replace("patches.py", "self * 2", "self * 3")),
    ("module of a folder without __init__", replace("extras/leaf.py", "n + 97", "n + 98")),
    ("setting made by a module", replace("settings.py", "prec = 7", "prec = 8")),
    ("setting made by a function that a module calls", replace("settings.py", "Emax = 101", "Emax = 102")),
]

LATE = [
    ("import_late", "import inside a function", replace("late.py", "n + OFFSET", "n - OFFSET")),
    ("import_late", "helper of what is imported there", replace("late.py", "n * 71", "n * 72")),
    ("import_late", "constant of what is imported there", replace("late.py", "OFFSET = 67", "OFFSET = 68")),
    (
        "import_late",
        "attribute of a module imported there",
        replace("late.py", "CONSTANT = 61", "CONSTANT = 62"),
    ),
    ("import_late", "module behind that one", replace("deep.py", "SURCHARGE = 29", "SURCHARGE = 30")),
    ("import_choices", "import under an if", replace("chosen.py", "return 149", "return 150")),
    ("import_choices", "first import that is tried", replace("chosen.py", "return 157", "return 158")),
    ("import_choices", "function where an import fails", replace("choices.py", "return 151", "return 152")),
    ("import_choices", "import that is wrapped", replace("chosen.py", "return 163", "return 164")),
    ("import_choices", "what a module hands on", replace("chosen.py", "return 167", "return 168")),
    ("import_choices", "function that a module registers", replace("entries.py", "return 173", "return 174")),
    ("import_choices", "subclass that a module adds", replace("entries.py", "return 179", "return 180")),
    (
        "import_choices",
        "implementation it adds",
        replace("entries.py", "return 181", "return 182"),
    ),
    ("import_choices", "module that names itself", replace("nest/inner.py", "return 193", "return 194")),
    ("import_deep", "setting of a package above", replace("nest/__init__.py", "= 191", "= 192")),
    ("import_file", "module loaded from its file", replace("chosen.py", "return 149", "return 150")),
    ("import_named", "function that a table names", replace("formats.py", "text.upper()", "text.title()")),
    ("import_named", "entry of a table of names", replace("readers.py", 'formats:plain"', 'formats:fancy"')),
    ("look_up", "getattr(module, name)", replace("names.py", "73 +", "74 +")),
    ("look_up", "module behind that one", replace("deep.py", "SURCHARGE = 29", "SURCHARGE = 30")),
    ("import_computed", "import_module(computed)", replace("plugins/alpha.py", "return 83", "return 84")),
    ("import_late", "one of two constants, imported there", replace("pairs.py", "131, 137", "132, 137")),
    (
        "import_late",
        "constant under an if, imported there",
        replace("pairs.py", "UPPER = 139", "UPPER = 140"),
    ),
    ("import_relative", "import_module(relative)", replace("plugins/alpha.py", "return 83", "return 84")),
    ("import_bare", "computed, in a folder without __init__", replace("../addons/gamma.py", "89", "90")),
    ("look_around", "global behind a function", replace("texts.py", "HIDDEN = 127", "HIDDEN = 128")),
    ("read_text", "docstring that is data", replace("texts.py", "SELECT 1", "SELECT 2")),
    ("read_text", "description that is data", replace("texts.py", "How many.", "How many pieces.")),
]


def _blank_lines(folder: Path) -> None:
    for file in (folder / "shop").rglob("*.py"):
        file.write_text(
            file.read_text().replace("\n    return", "\n\n    return").replace("\n\n\ndef", "\n\n\n\n\ndef")
        )


def _comments(folder: Path) -> None:
    for file in (folder / "shop").rglob("*.py"):
        lines = file.read_text().split("\n")
        file.write_text("\n".join(f"{line}  # note" if line.endswith((")", "]")) else line for line in lines))


def _moved_below(folder: Path) -> None:
    """The first function of a module becomes its last."""
    path = folder / "shop" / "functions.py"
    text = path.read_text()
    moved = re.search(r"def price\(.*?\n\n\n", text, re.DOTALL)
    assert moved is not None
    path.write_text(f"{text.replace(moved.group(), '')}\n\n{moved.group().rstrip()}\n")


def _moved_away(folder: Path) -> None:
    """A function and its constant move to a module of their own, and are imported from there."""
    path = folder / "shop" / "deep.py"
    text = path.read_text()
    surcharge = "def surcharge() -> int:\n    return SURCHARGE\n\n\n"
    kept = text.replace(surcharge, "").replace(
        "SURCHARGE = 29\n", "from shop.charges import surcharge as surcharge\n"
    )
    path.write_text(kept)
    head = '"""Charges."""\n\nfrom __future__ import annotations\n\nSURCHARGE = 29\n\n\n'
    (folder / "shop" / "charges.py").write_text(head + surcharge.rstrip() + "\n")


def _moved_task(folder: Path) -> None:
    """A task moves to a module of its own."""
    path = folder / "shop" / "tasks.py"
    text = path.read_text()
    imports, task = text[: text.index("@task")], re.search(r"@task\ndef use_values.*?\n\n\n", text, re.DOTALL)
    assert task is not None
    path.write_text(text.replace(task.group(), "") + "\n\nfrom shop.moved import use_values as use_values\n")
    (folder / "shop" / "moved.py").write_text(imports + task.group().rstrip() + "\n")


def _reformatted(folder: Path) -> None:
    """All files as Python itself would write them: other lines, quotes and brackets."""
    for file in (folder / "shop").rglob("*.py"):
        file.write_text(ast.unparse(ast.parse(file.read_text())))


def _renamed_local(folder: Path) -> None:
    path = folder / "shop" / "functions.py"
    path.write_text(path.read_text().replace("subtotal", "so_far").replace("inner", "within"))


CONTINUED = ("subtotal + tax(n) + fee(n)", "(\n        subtotal\n        + tax(n)\n        + fee(n)\n    )")
COSMETIC = [
    (
        "call_functions",
        "comment in the task",
        replace("tasks.py", "# One line per way of reaching code.", "# Calls."),
    ),
    (
        "call_functions",
        "docstring of the task",
        replace("tasks.py", "Functions that call functions.", "Calls."),
    ),
    ("call_functions", "comments everywhere", _comments),
    (
        "call_functions",
        "docstring of a helper",
        replace("functions.py", "What it costs.", "The price in cents."),
    ),
    (
        "call_functions",
        "docstring of a module",
        replace("functions.py", "Functions that reach functions.", "Functions."),
    ),
    (
        "call_functions",
        "docstring added",
        replace("functions.py", "    return n + 2", '    """A tax."""\n    return n + 2'),
    ),
    ("call_functions", "blank lines", _blank_lines),
    ("call_functions", "reformatted", _reformatted),
    ("use_classes", "reformatted classes", _reformatted),
    ("import_late", "reformatted module, imported late", _reformatted),
    ("look_up", "reformatted module, hashed whole", _reformatted),
    ("import_computed", "reformatted project, hashed whole", _reformatted),
    ("call_functions", "line continued", replace("functions.py", *CONTINUED)),
    ("call_functions", "other quotes", replace("functions.py", '"caught"', "'caught'")),
    (
        "call_functions",
        "brackets that mean nothing",
        replace("functions.py", "return n + 2", "return (n + 2)"),
    ),
    (
        "call_functions",
        "type comment",
        replace("functions.py", "subtotal = n * 10", "subtotal = n * 10  # type: int"),
    ),
    (
        "call_functions",
        "annotation of a local variable",
        replace("functions.py", "subtotal = n * 10", "subtotal: int = n * 10"),
    ),
    ("call_functions", "function moved within its file", _moved_below),
    ("call_functions", "function moved to another module", _moved_away),
    ("use_values", "task moved to another module", _moved_task),
    ("call_functions", "renamed local variable", _renamed_local),
    (
        "call_functions",
        "imports in another order",
        replace("functions.py", "import fee, join, surcharge", "import surcharge, join, fee"),
    ),
    (
        "call_functions",
        "unused import added",
        replace("functions.py", "import functools\n", "import functools\nimport json\n"),
    ),
    (
        "call_functions",
        "unused function added",
        append("functions.py", "\n\ndef added(n: int) -> int:\n    return n\n"),
    ),
    (
        "import_late",
        "unused function added, imported late",
        append("late.py", "\n\ndef added(n: int) -> int:\n    return n\n"),
    ),
    ("call_functions", "unused function changed", replace("deep.py", "n * 1000", "n * 1001")),
    (
        "call_functions",
        "task beside it changed",
        replace("tasks.py", "return read(kind", "return 2 * read(kind"),
    ),
    ("call_functions", "module that nobody uses", replace("other.py", "return n", "return -n")),
    ("use_values", "constant that nobody uses", replace("values.py", "UNUSED = 48", "UNUSED = 49")),
    ("use_values", "name of a logger", replace("values.py", "getLogger(__name__)", 'getLogger("shop")')),
    ("use_classes", "docstring of a class", replace("classes.py", "What has an area.", "A shape.")),
    (
        "use_classes",
        "docstring of a method",
        replace("classes.py", "The square of the side.", "Side by side."),
    ),
    ("use_classes", "docstring of a model", replace("specs.py", "What a customer wants.", "An order.")),
    ("use_classes", "description of a field", replace("specs.py", '"Pieces."', '"How many pieces."')),
    ("use_kinds", "docstring of a computed field", replace("live.py", "In capitals.", "Loud.")),
    (
        "use_kinds",
        "log level set by a module",
        replace("quiet.py", "log.setLevel(logging.INFO", "log.setLevel(logging.DEBUG"),
    ),
    ("use_kinds", "unused entry of a table", replace("quiet.py", '"unused"] = 1', '"unused"] = 2')),
    ("use_kinds", "unused one of two constants", replace("quiet.py", "= 1, 2", "= 1, 3")),
    ("use_kinds", "reformatted classes and settings", _reformatted),
    ("look_up", "docstring in a module hashed whole", replace("names.py", "The first.", "Number one.")),
    (
        "import_computed",
        "docstring in a project hashed whole",
        replace("plugins/alpha.py", "One of them.", "Alpha."),
    ),
]

CODE_EDITS: list[Edit] = [
    *(_miss("use_kinds", name, edit) for name, edit in KINDS),
    *(_miss("call_functions", name, edit) for name, edit in FUNCTIONS),
    *(_miss("use_classes", name, edit, shows=all(shows)) for name, edit, *shows in CLASSES),
    *(_miss("use_values", name, edit, shows=all(shows)) for name, edit, *shows in VALUES),
    *(_miss(task, name, edit) for task, name, edit in LATE),
    *(_hit(task, name, edit) for task, name, edit in COSMETIC),
]
