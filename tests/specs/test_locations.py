"""Which URIs a value stands on: every field marked so, however deep, and no other text."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any, NamedTuple, NotRequired

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from ml_platform.errors import SpecError
from ml_platform.specs.base import Location, Spec
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.locations import locations
from ml_platform.specs.references import (
    Dataset,
    Evaluation,
    Metric,
    Model,
    Parts,
    Predictions,
    Table,
    Version,
)

CONTRACT = Contract(columns=(Column(name="x", type="float"),))


class Place(Spec):
    """Each field that may hold a URI, and text that holds none."""

    plain: Location | None = None
    described: Location = Field("", description="With a description.")
    listed: list[Location] = []  # noqa: RUF012
    named: dict[str, Location] = {}  # noqa: RUF012
    pair: tuple[str, Location] = ("", "")
    any_of: Location | int | None = None
    whatever: Any = None
    text: str = "text"


@dataclass
class Data:
    at: Location
    text: str = "text"


class Named(NamedTuple):
    at: Location
    below: list[Data]


class Typed(TypedDict):
    at: NotRequired[Location]
    text: str


class WithTyped(Spec):
    typed: Typed


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


Untyped = namedtuple("Untyped", ["below"])


def dataset(uri: str) -> Dataset:
    return Dataset(uri=uri, contract=CONTRACT, rows=1, bytes=2, fingerprint="f")


def model(uri: str) -> Model:
    return Model(uri=uri, family="keras", run_id="r", digest="d", contract=CONTRACT, classes=("a",))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Place(), ()),
        (Place(plain="u", described="v"), ("u", "v")),
        (Place(listed=["u", "v", "u"]), ("u", "v")),
        (Place(named={"key": "u"}), ("u",)),
        (Place(pair=("text", "u")), ("u",)),
        (Place(any_of="u"), ("u",)),
        (Place(whatever="text"), ()),
        (Place(whatever={"deep": [Place(plain="u")]}), ("u",)),
        (Data("u"), ("u",)),
        (Named("u", [Data("v")]), ("u", "v")),
        (WithTyped(typed={"at": "u", "text": "text"}), ("u",)),
        (Open(more=Data("u")), ("u",)),
        (Untyped([Data("u")]), ("u",)),
        ([Data("u"), (Data("v"), {"k": Data("w")})], ("u", "v", "w")),
        ({1: "text"}, ()),
        (None, ()),
    ],
)
def test_marked_fields_and_no_other_text(value: object, expected: tuple[str, ...]) -> None:
    assert locations(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (dataset("u"), ("u",)),
        (Table(data=dataset("u"), quarantine=dataset("v"), source="text"), ("u", "v")),
        (Parts(train=dataset("t"), validation=dataset("v"), holdout=dataset("h")), ("t", "v", "h")),
        (Version(name="n", version=1, model=model("models:/m-1")), ("models:/m-1",)),
        (
            Evaluation(
                model=model("models:/m-1"),
                part="holdout",
                data_fingerprint="f",
                rows=1,
                metrics={"m": Metric(value=1, low=0, high=2)},
                rows_uri="u",
            ),
            ("models:/m-1", "u"),
        ),
        (Predictions(uri="u", rows=1, model_uri="text", model_version=1), ("u",)),
    ],
)
def test_references_say_where_they_lie(value: Spec, expected: tuple[str, ...]) -> None:
    assert locations(value) == expected


@pytest.mark.parametrize("kind", [Dataset, Table, Model, Evaluation, Predictions])
def test_marks_do_not_show_in_the_schema_that_people_see(kind: type[Spec]) -> None:
    for field in kind.model_json_schema()["properties"].values():
        assert not {"anyOf", "allOf"} & set(field) or "null" in str(field)


def test_annotations_that_cannot_be_read_are_an_error_not_an_oversight() -> None:
    @dataclass
    class Hidden:
        at: Location
        below: Nowhere  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(SpecError, match=r"Hidden cannot be read(.|\n)*Nowhere"):
        locations(Hidden("u", 1))
