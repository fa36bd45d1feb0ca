"""What a label asks for: the rule as it is documented, what a person says instead, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.data import classes
from ml_platform.data.classes import find_problem
from ml_platform.errors import DataError
from ml_platform.specs.contracts import Column, ColumnType, Contract
from ml_platform.specs.problems import AskedProblem, Problem
from ml_platform.specs.references import Dataset

TYPES: dict[type, ColumnType] = {str: "string", float: "float", int: "integer", bool: "boolean"}


class Labels:
    """Data sets of a label alone, without a store."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.file = folder / "labels.parquet"
        patch.setattr(classes, "dataset_files", lambda dataset: [type("File", (), {"uri": dataset.uri})])

    def find(self, labels: list[object], asked: AskedProblem = "auto") -> Problem:
        pq.write_table(pa.table({"y": labels}), self.file, row_group_size=1000)
        contract = Contract(columns=(Column(name="y", type=TYPES[type(labels[0])]),), label="y")
        dataset = Dataset(
            uri=self.file.as_uri(), contract=contract, rows=len(labels), bytes=1, fingerprint="f"
        )
        return find_problem(dataset, "y", "my.csv", asked)


@pytest.fixture
def labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Labels:
    return Labels(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("values", "kind", "because"),
    [
        (["no", "yes"] * 30, "binary", "'y' has 2 different values, 'yes' is the positive one."),
        ([True, False] * 30, "binary", "'y' has 2 different values, 'true' is the positive one."),
        (
            ["no", "yes", "NA"] * 20,
            "multiclass",
            (
                "'y' has 3 different values: NA, no, yes "
                "(does 'NA' stand for no value? then leave its rows out of the table)."
            ),
        ),
        (["red", "deep er", "blue"] * 30, "multiclass", "'y' has 3 different values: blue, deep er, red."),
        ([f"c{at % 300}" for at in range(900)], "multiclass", "'y' has 300 different values."),
        ([1, 2, 3] * 20, "multiclass", "'y' has 3 different values; `--problem regression` says otherwise."),
        ([0.0, 1.0] * 20, "binary", "'y' has 2 different values, '1' is the positive one."),
        (
            [at / 2 for at in range(60)],
            "regression",
            "'y' has numbers with fractions; `--problem multiclass` says otherwise.",
        ),
        (
            [float(at) for at in range(60)],
            "regression",
            "'y' has 60 different numbers in 60 rows; `--problem multiclass` says otherwise.",
        ),
        ([at % 60 for at in range(300)], "multiclass", None),
        ([at % 1001 for at in range(9009)], "regression", None),
    ],
    ids=[
        "text",
        "bool",
        "missing",
        "named",
        "many",
        "few",
        "two",
        "fractions",
        "distinct",
        "often",
        "thousand",
    ],
)
def test_the_rule_finds_it_and_says_why(
    labels: Labels, values: list[object], kind: str, because: str | None
) -> None:
    found = labels.find(values)
    assert found.kind == kind
    assert because is None or found.reason == because


def test_what_is_asked_for_is_taken_at_its_word(labels: Labels) -> None:
    assert labels.find([1, 2, 3] * 20, "regression").kind == "regression"
    assert labels.find([float(at) for at in range(60)], "multiclass").kind == "multiclass"
    assert labels.find(["a", "b"] * 20, "multiclass").kind == "binary"
    assert labels.find(["a", "b"] * 20, "binary").reason == "'y', as asked, 'b' is the positive one."


@pytest.mark.parametrize(
    ("values", "asked", "message"),
    [
        (["x"] * 60, "auto", r"one class(.|\n)*'x' in all 60 rows"),
        ([f"id{at}" for at in range(1200)], "auto", r"too many values(.|\n)*1,000"),
        (["a", "b", "c"] * 9, "binary", r"is not binary(.|\n)*got: 3: a, b, c"),
        (["a", "b"] * 9, "regression", r"cannot be regressed on(.|\n)*values of type string"),
        ([2.5] * 9, "auto", r"no numbers to learn(.|\n)*2.5 in all 9 rows"),
        ([2.5, 1.0, float("inf")] * 9, "auto", r"no numbers to learn(.|\n)*9 infinite ones"),
    ],
    ids=["one", "many", "not binary", "text", "constant", "infinite"],
)
def test_a_label_that_cannot_be_that_is_refused(
    labels: Labels, values: list[object], asked: AskedProblem, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        labels.find(values, asked)
    assert str(caught.value).startswith("my.csv: column 'y'")
