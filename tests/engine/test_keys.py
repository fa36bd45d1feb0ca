"""Keys: what a node is and what it is given, as digests that differ whenever the content does."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import json
import math
import pickle
import random
from collections import Counter, OrderedDict, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, PrivateAttr, SecretBytes, SecretStr

from ml_platform.engine import Graph, Task, dag, either, task, when
from ml_platform.engine.code import code_of
from ml_platform.engine.graph import SKIPPED, Either, Reference
from ml_platform.engine.keys import (
    NoIdentityError,
    Own,
    as_declared,
    digest_of,
    identity,
    inputs_key,
    own_key,
    task_code,
    value_digest,
)
from ml_platform.resources.leases import Leases, Scope
from ml_platform.resources.placement import load_placement
from ml_platform.specs.base import Location, NotIdentity, Spec
from ml_platform.specs.resources import Horovod, ResourceSpec, Spark, Tracking
from tests.engine.small import add, is_even, number, total

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def written(value: Any) -> str:
    """JSON tells all of these apart: 1, 1.0, true, "1", NaN; the order of a dict it does not count."""
    return json.dumps(value, sort_keys=True)


# ── identity ─────────────────────────────────────────────────────────────────────────────────────


@given(json_values, json_values)
def test_values_are_equal_exactly_when_their_content_is(one: Any, two: Any) -> None:
    assert (value_digest(one) == value_digest(two)) == (written(one) == written(two))


@given(json_values)
def test_a_copy_is_the_same_value(value: Any) -> None:
    assert value_digest(json.loads(json.dumps(value))) == value_digest(value)


@given(st.dictionaries(st.text(max_size=3) | st.integers(), json_values, max_size=4), st.randoms())
def test_the_order_of_a_dict_does_not_count(value: dict[Any, Any], shuffle: random.Random) -> None:
    items = list(value.items())
    shuffle.shuffle(items)
    assert value_digest(dict(items)) == value_digest(value)


class Colour(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Span:
    x: int
    y: int


class Inner(BaseModel):
    x: int
    y: int = 2


class Other(BaseModel):
    x: int
    y: int = 2


class Name(str):
    __slots__ = ()


class Listed(list[int]):
    pass


class Amount(float):
    def __new__(cls, value: float, unit: str) -> Amount:
        made = super().__new__(cls, value)
        made.unit = unit  # type: ignore[attr-defined]
        return made


@dataclasses.dataclass
class Cut:
    x: int
    y: dataclasses.InitVar[int]

    def __post_init__(self, y: int) -> None:
        self.both = self.x * y


class Closed(BaseModel):
    x: int
    _open: bool = PrivateAttr(default=False)


opened = Closed(x=1)
opened._open = True
EAST = dt.timezone(dt.timedelta(hours=1))

DIFFERENT: list[Any] = [
    *(1, 1.0, True, "1", "True", None, "None", "null", 0, 0.0, -0.0, False, ""),
    *(math.nan, "NaN", "nan", math.inf, "Infinity", -math.inf, {"$": "NaN"}),
    *([1, 2], [2, 1], (1, 2), [[1], 2], [[1, 2]], [1, [2]], {1, 2}, frozenset({1, 2}), range(1, 3), [], ()),
    *({}, {"x": 1, "y": 2}, {"x": 2, "y": 1}, {"x": {"y": 2}}, {"x.y": 2}, {1: 2}, {"1": 2}, {1.0: 2}),
    *({"$": "input"}, {"$": "dict", "is": {}}, Reference("a"), SKIPPED),
    *(Colour.RED, Shade.RED, "red", "RED", Name("red")),
    *(Point(1, 2), Span(1, 2), Inner(x=1), Other(x=1), Inner(x=1, y=3)),
    *(b"1", bytearray(b"1"), Decimal(1), Decimal("1.0"), Path("a"), "a", UUID(int=1)),
    *(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),  # noqa: DTZ001
    dt.datetime(2024, 1, 1, fold=1),  # noqa: DTZ001
    *(
        dt.datetime(2024, 1, 1, tzinfo=zone)
        for zone in (EAST, ZoneInfo("Europe/Zurich"), ZoneInfo("Europe/Rome"))
    ),
    *(defaultdict(int), defaultdict(list), Counter("a"), {"a": 1}, Listed([1]), [1]),
    *(OrderedDict(x=1, y=2), OrderedDict(y=2, x=1), range(0, 9, 3), range(0, 10, 3)),
    *(Amount(1, "chf"), Amount(1, "eur"), Cut(1, 2), Cut(1, 3), Closed(x=1), opened),
    *(dt.time(1), dt.timedelta(days=1), dt.timedelta(seconds=1)),
    *(np.int64(1), np.int32(1), np.float64(1), np.float32(1), np.bool_(True), np.array(1), np.array([1])),
    *(np.array([[1, 2]]), np.array([[1], [2]]), np.array([1, 2]), np.array([2, 1])),
    *(json.dumps, json.loads, math.sqrt),
]


def test_what_python_or_json_takes_for_equal_is_told_apart() -> None:
    """Types count, also those whose values compare as equal."""
    digests: dict[str, Any] = {}
    for value in DIFFERENT:
        digest = value_digest(value)
        assert digest not in digests, f"{value!r} has the identity of {digests[digest]!r}"
        digests[digest] = value


@pytest.mark.parametrize("value", DIFFERENT, ids=range(len(DIFFERENT)))
def test_the_identity_is_json(value: Any) -> None:
    assert json.loads(json.dumps(identity(value, "it"))) == identity(value, "it")


def _square(n: int) -> Any:
    @dataclasses.dataclass
    class Square:
        side: int = 2

        def area(self) -> int:
            return n * self.side

    return Square()


def _colour(code: str) -> Any:
    class Colour(enum.Enum):
        RED = code

    return Colour.RED


@pytest.mark.parametrize("made", [_square, _colour])
def test_the_code_of_a_values_class_is_part_of_it(made: Any) -> None:
    """A task may call its methods, and no annotation of the task need say so."""
    assert value_digest(made(1)) == value_digest(made(1))
    assert value_digest(made(1)) != value_digest(made(2))
    assert value_digest([{"deep": made(1)}]) != value_digest([{"deep": made(2)}])


@dataclasses.dataclass(frozen=True)
class Carried:
    n: int


def carrying(n: int) -> int:
    return Carried(n).n


def test_a_class_that_was_pickled_is_what_it_was() -> None:
    """Python notes the names of its slots on it then: what goes to an executor would run anew each time."""
    before = code_of(carrying).digest
    pickle.dumps(Carried(1))
    assert "__slotnames__" in vars(Carried)
    assert code_of(carrying).digest == before


def test_what_can_be_computed_again_is_no_part_of_a_value() -> None:
    @dataclasses.dataclass
    class Lazy:
        side: int = 2

        @functools.cached_property
        def area(self) -> int:
            return self.side * self.side

    one, two = Lazy(), Lazy()
    assert two.area == 4
    assert value_digest(one) == value_digest(two)


def test_a_zone_that_nothing_names_has_no_identity() -> None:
    class Odd(dt.tzinfo):
        def utcoffset(self, when: dt.datetime | None) -> None:
            return None

    with pytest.raises(NoIdentityError, match="Odd has no identity"):
        identity(dt.datetime(2024, 1, 1, tzinfo=Odd()), "it")


def test_a_nan_is_a_nan() -> None:
    assert value_digest([math.nan]) == value_digest([float("nan")])
    assert value_digest({3: {1, 2, 3}}) == value_digest({3: {3, 2, 1}})


class Placed(Spec):
    uri: Location
    other: Location | None = None
    more: tuple[Location, ...] = ()
    by_name: Annotated[str, NotIdentity()] = ""
    seconds: Annotated[float, NotIdentity()] = 0.0
    rows: int = 0
    child: Placed | None = None


def test_where_something_is_does_not_count() -> None:
    one = Placed(uri="file:///a", seconds=1, rows=1)
    two = Placed(uri="s3://b", other="file:///c", more=("x",), by_name="b", seconds=2, rows=1)
    assert value_digest(one) == value_digest(two)
    assert value_digest(one) != value_digest(two.model_copy(update={"rows": 2}))
    assert value_digest([Placed(uri="a", child=one)]) == value_digest([Placed(uri="b", child=two)])


class Secretive(BaseModel):
    user: str
    password: SecretStr
    token: SecretBytes = SecretBytes(b"")


def test_a_secret_never_shows() -> None:
    """And does not count: a new password is no new result."""
    one = Secretive(user="ann", password=SecretStr("hunter2"), token=SecretBytes(b"t0ken"))
    shown = json.dumps(identity(one, "login"))
    assert "hunter2" not in shown
    assert "t0ken" not in shown
    assert value_digest(one) == value_digest(one.model_copy(update={"password": SecretStr("other")}))
    assert value_digest(one) != value_digest(one.model_copy(update={"user": "bob"}))


class Holder:
    """Nothing tells one from another."""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Holder(), "it: a tests.engine.test_keys.Holder has no identity"),
        ({"deep": [1, Holder()]}, "it.deep[1]: a tests.engine.test_keys.Holder has no identity"),
        (Span(1, Holder()), "it.y: a tests.engine.test_keys.Holder"),  # type: ignore[arg-type]
        (np.array([Holder()]), "it: a numpy.ndarray has no identity"),
        (np.random.default_rng(), "it: a numpy.random._generator.Generator has no identity"),
        (object(), "it: a builtins.object has no identity"),
        (1j, "it: a builtins.complex has no identity"),
    ],
    ids=["itself", "deep", "field", "array of objects", "generator", "object", "complex"],
)
def test_what_nothing_tells_apart_says_where_it_stands(value: Any, said: str) -> None:
    with pytest.raises(NoIdentityError, match="has no identity") as caught:
        identity(value, "it")
    assert said in str(caught.value)


# ── The own key ──────────────────────────────────────────────────────────────────────────────────


def own(graph: Graph, name: str, probe: Any = None) -> Own:
    leases = Leases(Scope(name="test", run="test", placement=load_placement()))
    node = graph[name]
    return own_key(node, leases.resolve(node.resources), probe, task_code(node.task.function))


def key(called: Task[..., Any], *args: Any, probe: Any = None, **kwargs: Any) -> Own:
    """The own key of one call."""

    @dag
    def calls() -> Any:
        do = called
        return do(*args, **kwargs)

    return own(calls.graph(), called.name, probe)


@task
def free(value: Any, more: Any = None) -> int:
    return 0


@pytest.mark.slow
@given(json_values, json_values)
def test_a_parameter_changes_the_key_exactly_when_its_content_changes(one: Any, two: Any) -> None:
    """However its readable parts look."""
    assert (key(free, one).digest == key(free, two).digest) == (written(one) == written(two))


TRICKY: list[Any] = [
    {"a.b": 1, "a": {"b": 2}},
    {"a.b": 3, "a": {"b": 2}},
    {"a.b": 2, "a": {"b": 2}},
    {"a": {"b": 2}},
    {"a": {}, "a type": "dict"},
    {"a": {"x": 1}, "a type": "dict"},
    {"a": Inner(x=1), "a type": "Inner"},
    {"a": Inner(x=1), "a type": "Other"},
    {"a": Other(x=1), "a type": "Inner"},
]


def test_names_with_dots_are_not_mixed_up() -> None:
    assert len({key(free, value).digest for value in TRICKY}) == len(TRICKY)


def test_each_parameter_counts_by_its_name() -> None:
    assert key(add, 1, y=2).digest == key(add, 1, 2).digest
    assert key(add, 1).digest == key(add, 1, 1).digest, "a default is a value"
    assert len({key(add, 1, 2).digest, key(add, 2, 1).digest, key(add, 1, 3).digest}) == 3


def test_the_parts_say_what_changed() -> None:
    assert key(add, 1, 2).parts == {"parameter x": "1", "parameter y": "2"}
    parts = key(free, Inner(x=1), more={"deep": {"list": [1, "a"]}, "path": Path("a")}).parts
    assert parts["parameter value.x"] == "1"
    assert parts["parameter value type"] == "Inner"
    assert parts["parameter more.deep.list"] == '[1, "a"]'
    assert parts["parameter more.path"] == '"a"'
    assert key(free, "x" * 500).parts["parameter value"].startswith("sha256 ")


def test_what_has_no_identity_makes_a_node_uncacheable() -> None:
    found = key(free, {"deep": Holder()})
    assert found.uncacheable == ("value.deep: a tests.engine.test_keys.Holder has no identity",)


@task(probe=lambda value: None)
def probing(value: int) -> int:
    return value


def test_what_a_probe_saw_counts() -> None:
    seen = [None, 1, "1", {"version": 1}, {"version": 2}, Inner(x=1), Inner(x=2), Path("a")]
    assert len({key(probing, 1, probe=each).digest for each in seen}) == len(seen)
    assert key(probing, 1, probe={"version": 1}).parts["probe.version"] == "1"
    assert key(probing, 1, probe="v3").parts["probe"] == '"v3"'


def test_where_a_probe_found_it_does_not_count() -> None:
    one, two = Placed(uri="file:///a", rows=3), Placed(uri="s3://b", rows=3)
    assert key(probing, 1, probe=one).digest == key(probing, 1, probe=two).digest
    assert key(probing, 1, probe=one).parts["probe"].startswith("file:///a (")


def test_a_probe_that_sees_something_without_identity_makes_it_uncacheable() -> None:
    found = key(probing, 1, probe={"it": Holder()})
    assert found.uncacheable == ("probe.it: a tests.engine.test_keys.Holder has no identity",)


# ── Files and variables ──────────────────────────────────────────────────────────────────────────


@task(reads=["sql/*.sql", "rules"])
def reading(n: int) -> int:
    return n


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("sql/a.sql", "sql/b.sql", "rules/deep/one.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far.yaml").write_text("far")
    (tmp_path / "rules" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "rules" / "around").symlink_to(tmp_path / "rules")
    return tmp_path


EDITS = {
    "edited": lambda at: (at / "sql/a.sql").write_text("sql/A.sql"),
    "added": lambda at: (at / "sql/c.sql").write_text("c"),
    "added empty": lambda at: (at / "sql/c.sql").touch(),
    "gone": lambda at: (at / "sql/a.sql").unlink(),
    "renamed": lambda at: (at / "sql/a.sql").rename(at / "sql/z.sql"),
    "swapped": lambda at: [
        (at / "sql/a.sql").write_text("sql/b.sql"),
        (at / "sql/b.sql").write_text("sql/a.sql"),
    ],
    "edited in a folder": lambda at: (at / "rules/deep/one.yaml").write_text("rules/deep/One.yaml"),
    "edited behind a link to a folder": lambda at: (at / "elsewhere/far.yaml").write_text("farther"),
    "added in a folder": lambda at: (at / "rules/two.yaml").write_text("two"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_change_of_a_declared_file_counts(files: Path, edit: str) -> None:
    before = key(reading, 1)
    EDITS[edit](files)
    assert key(reading, 1).digest != before.digest


def test_other_files_do_not_count(files: Path) -> None:
    before = key(reading, 1)
    (files / "sql" / "notes.txt").write_text("not named")
    (files / "sql" / "a.sql").write_text("sql/a.sql")
    assert key(reading, 1).digest == before.digest
    assert set(before.parts) >= {"file sql/a.sql", "file sql/b.sql", "file rules/deep/one.yaml"}


@pytest.mark.parametrize("option", ["reads", "environment"])
def test_a_bare_string_is_not_taken_for_its_letters(option: str) -> None:
    with pytest.raises(Exception, match=option) as caught:
        task(**{option: "sql/*.sql"})(number.function)
    assert caught.typename == "GraphError"


def test_declared_variables_count_and_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    @task(environment=["SECRET_OF_TEST"])
    def reads_environment(n: int) -> int:
        return n

    monkeypatch.delenv("SECRET_OF_TEST", raising=False)
    keys = [key(reads_environment, 1)]
    for value in ("", "hunter2", "hunter3"):
        monkeypatch.setenv("SECRET_OF_TEST", value)
        keys.append(key(reads_environment, 1))
    monkeypatch.setenv("OTHER_OF_TEST", "x")
    assert len({found.digest for found in keys}) == 4
    assert key(reads_environment, 1).digest == keys[-1].digest
    assert "hunter" not in str(keys)


# ── Resources ────────────────────────────────────────────────────────────────────────────────────


def with_recipe(recipe: ResourceSpec, **options: Any) -> str:
    def trains(n: int, job: Any = recipe) -> int:
        return n

    found = task(**options)(trains)

    @dag
    def calls() -> int:
        do = found
        return do(1)

    graph = calls.graph()
    node = graph["trains"]
    leases = Leases(Scope(name="test", run="test", placement=load_placement()))
    code = task_code(number.function)  # the default is code, too: this test is about the recipe
    return own_key(node, leases.resolve(node.resources), None, code).digest


def test_what_shapes_a_result_counts_and_where_it_is_computed_does_not() -> None:
    two = with_recipe(Horovod(ranks=2, backend="processes"))
    assert two != with_recipe(Horovod(ranks=3, backend="processes"))
    assert two == with_recipe(Horovod(ranks=2, backend="in_process"))
    assert two == with_recipe(
        Horovod(ranks=2, backend="processes", start_timeout_s=5, heartbeat_timeout_s=5, max_restarts=2)
    )
    assert with_recipe(Spark()) != with_recipe(Spark(conf={"spark.sql.ansi.enabled": "false"}))
    assert with_recipe(Tracking()) == with_recipe(Tracking(nested=True))


def test_a_task_that_is_free_of_its_placement_says_so() -> None:
    one, two = Horovod(ranks=2), Horovod(ranks=3)
    assert with_recipe(one, placement_free=True) == with_recipe(two, placement_free=True)


# ── What a node is given ─────────────────────────────────────────────────────────────────────────


@task
def takes(value: Any = None, other: Any = None) -> int:
    return 0


def given_to(value: Any, **others: Any) -> tuple[str, str, dict[str, str]]:
    """Own and inputs key of `takes`, where every node's output is told by its name."""

    @dag
    def calls() -> int:
        a, b = add.with_options(name="a")(1), add.with_options(name="b")(2)
        made = value
        return takes(made(a, b), **{name: make(a, b) for name, make in others.items()})

    graph = calls.graph()
    inputs, parts = inputs_key(graph["takes"], lambda found, whole: digest_of(str(found)))
    return own(graph, "takes").digest, inputs, parts


ARRANGED: list[Any] = [
    lambda a, b: a,
    lambda a, b: b,
    lambda a, b: [a],
    lambda a, b: [a, b],
    lambda a, b: [b, a],
    lambda a, b: (a, b),
    lambda a, b: [[a], b],
    lambda a, b: [a, [b]],
    lambda a, b: [a, 5],
    lambda a, b: [5, a],
    lambda a, b: {"k": a, "l": b},
    lambda a, b: {"k": b, "l": a},
    lambda a, b: {"k": a, "m": b},
    lambda a, b: {"k": {"l": a}, "m": b},
    lambda a, b: {1: a, "1": b},
    lambda a, b: {1: b, "1": a},
    lambda a, b: {"k']['l": a, "m": b},
]


def test_the_place_of_an_input_counts() -> None:
    """Two promises that change places are another call."""
    keys = {given_to(arranged)[:2] for arranged in ARRANGED}
    assert len(keys) == len(ARRANGED)


def test_which_parameter_gets_an_input_counts() -> None:
    none: Any = lambda a, b: None  # noqa: E731
    assert given_to(ARRANGED[0])[:2] != given_to(none, other=ARRANGED[0])[:2]


def test_the_order_in_which_a_dict_is_written_does_not_count() -> None:
    one, two = given_to(lambda a, b: {"k": a, "l": b}), given_to(lambda a, b: {"l": b, "k": a})
    assert one == two


def test_the_parts_of_inputs_name_their_places() -> None:
    _, _, parts = given_to(lambda a, b: {"k": [a, 1, b]}, other=lambda a, b: a)
    assert set(parts) == {"input value['k'][0]", "input value['k'][2]", "input other"}


def test_inputs_in_a_list_are_called_inputs() -> None:
    @dag
    def listed() -> int:
        return free([[add(1), add(2)], 3])

    assert own(listed.graph(), "free", None).parts["parameter value"] == "[[input, input], 3]"


def test_either_is_one_input() -> None:
    """Asked for as a whole: what it is depends on which branch ran, not on how many there were."""

    @dag
    def joined(n: int = 1) -> int:
        with when(is_even(n)) as even:
            one = add(n)
        with even.otherwise():
            two = total([n])
        return takes(either(one, two))

    _, parts = inputs_key(joined.graph()["takes"], lambda found, whole: type(found).__name__)
    assert parts == {"input value": Either.__name__}


TABLE = [1]


def _first() -> list[int]:
    return TABLE


def _second() -> int:
    return len(TABLE)


def test_inside_a_block_code_is_what_it_was_when_it_was_first_reached() -> None:
    """By any of the functions: a task that changes a table of globals changes no key of the run it is in."""
    before = task_code(_second).digest
    with as_declared():
        task_code(_first)
        TABLE.append(2)
        try:
            with as_declared():
                assert task_code(_second).digest == before
        finally:
            after = code_of(_second).digest
            TABLE.pop()
    assert after != before
