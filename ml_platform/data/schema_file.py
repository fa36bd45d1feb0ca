"""Schema files: YAML that `python -m ml_platform contract infer` writes, a person edits, `--schema` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import ValidationError

from ml_platform.errors import DataError, SpecError, nearest
from ml_platform.specs.contracts import ColumnKind
from ml_platform.specs.profiles import ColumnProfile, Profile
from ml_platform.specs.schemas import TableSchema

if TYPE_CHECKING:
    import yaml

KINDS = (*get_args(ColumnKind), "drop")
LIKE = "columns:\n  age: integer\n  plan: category"
PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NOT_TEXT = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Words that other readers of YAML take for values."""
EXAMPLES = 3
EXAMPLE_LETTERS = 24
HEAD = """\
# What the columns of {source} are: {rows:,} rows.
# Change a type, or write `drop` to leave a column out; then: --schema THIS_FILE
# Types: {kinds}.
# A value that is not of its column's type sets its row aside, with the reason.
# A column without a line here is found out about.
columns:
"""


def read_schema(path: str | None) -> TableSchema | None:
    """The schema in a file; none without a file.

    Raises:
        DataError: There is no such file, or it cannot be read.
        SpecError: It is no YAML, or says what a schema cannot. Names each line.
    """
    if path is None:
        return None
    found = dict(_entries(path, _node(path, _text(path))))
    lines = {name: line for name, (_, line) in found.items()}
    try:
        return TableSchema.model_validate({"columns": {name: kind for name, (kind, _) in found.items()}})
    except ValidationError as error:
        wrong = dict.fromkeys(str(fault["loc"][1]) for fault in error.errors())
        said = [f"line {lines[name]}: column {name!r} is {_shown(found[name][0])}" for name in wrong]
        first = found[next(iter(wrong))][0]
        raise SpecError(
            f"{path} is no schema",
            wanted=f"one of {', '.join(KINDS)}",
            evidence="\n".join(said),
            hint=nearest(first, KINDS) if isinstance(first, str) else None,
        ) from error


def check_schema(schema: TableSchema | None, source: str, names: tuple[str, ...], label: str | None) -> None:
    """Refuse a schema that names columns that are not there, or drops the label.

    Raises:
        SpecError: Says which.
    """
    if schema is None:
        return
    for name in schema.columns:
        if name not in names:
            raise SpecError(
                f"the schema names a column {name!r} that {source} does not have", hint=nearest(name, names)
            )
    if label in schema.dropped:
        raise SpecError(f"the schema drops the label {label!r}", wanted=f"one of {', '.join(KINDS[:-1])}")


def schema_text(source: str, profile: Profile, names: Sequence[str] = ()) -> str:
    """A schema file that says what was found: a line per column, and beside it why.

    Args:
        names: Of all columns of the source: those without a profile are named as left out.
    """
    head = HEAD.format(source=_one_line(source), rows=profile.rows, kinds=", ".join(KINDS))
    written = [f"  {_key(column.name)}: {column.kind}" for column in profile.columns]
    width = min(40, max(map(len, written), default=0))
    lines = [
        f"{line:<{width}}  # {_comment(column)}\n"
        for line, column in zip(written, profile.columns, strict=True)
    ]
    known = {column.name for column in profile.columns}
    lines += [f"  # {_key(name)}: nested or binary, left out\n" for name in names if name not in known]
    return head + "".join(lines)


def _text(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"schema file {path} cannot be read", got=error.strerror or error) from error
    except UnicodeDecodeError as error:
        raise SpecError(f"schema file {path} is not UTF-8 text", got=error) from error


def _node(path: str, text: str) -> yaml.Node | None:
    """What the file says, every value as the text that it is: `no` and `1` may be names of columns."""
    import yaml

    try:
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise SpecError(f"{path} is no YAML", wanted=LIKE, got=error) from error


def _entries(path: str, root: yaml.Node | None) -> Iterator[tuple[str, tuple[Any, int]]]:
    """Name, type and line of each column."""
    import yaml

    sections = _pairs(path, root) if root is not None else []
    wrong = [key for key, _ in sections if key.value != "columns"]
    if wrong or not sections:
        got = f"line {_line(wrong[0])}: {wrong[0].value!r}" if wrong else "nothing"
        raise SpecError(f"{path} is no schema", wanted=f"columns alone:\n{LIKE}", got=got)
    columns = sections[0][1]
    seen: dict[str, int] = {}
    for key, value in _pairs(path, columns):
        if key.value in seen:
            got = f"lines {seen[key.value]} and {_line(key)}"
            raise SpecError(f"{path} names column {key.value!r} twice", got=got)
        seen[key.value] = _line(key)
        yield key.value, (value.value if isinstance(value, yaml.ScalarNode) else value.tag, _line(key))


def _pairs(path: str, node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    import yaml

    pairs = node.value if isinstance(node, yaml.MappingNode) else None
    if pairs is None or not all(isinstance(key, yaml.ScalarNode) for key, _ in pairs):
        raise SpecError(
            f"{path} is no schema",
            wanted=f"names and types:\n{LIKE}",
            got=f"something else on line {_line(node)}",
        )
    return list(pairs)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _shown(kind: Any) -> str:
    return repr(kind) if kind else "nothing"


def _key(name: str) -> str:
    """
    >>> _key("age"), _key("no"), _key("a: b")
    ('age', '"no"', '"a: b"')
    """
    if PLAIN.fullmatch(name) and name.lower() not in NOT_TEXT:
        return name
    return json.dumps(name, ensure_ascii=not name.isprintable())


def _comment(column: ColumnProfile) -> str:
    differ = f"{'' if column.distinct < 1000 else 'about '}{column.distinct:,} distinct"
    facts = [f"{column.nulls:,} nulls", differ]
    if column.low is not None:
        facts.append(f"{column.low} … {column.high}")
    examples = [_one_line(frequent.value) for frequent in column.frequent[:EXAMPLES]]
    return ", ".join(facts) + (f"; such as {', '.join(examples)}" if examples else "")


def _one_line(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= EXAMPLE_LETTERS else f"{plain[:EXAMPLE_LETTERS]}…"
