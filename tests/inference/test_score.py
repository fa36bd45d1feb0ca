"""Scoring without Spark: what is checked before it starts, and what a bad row does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ml_platform.errors import DataError
from ml_platform.inference.input_check import check_input
from ml_platform.inference.raw_model import load_raw_model
from ml_platform.inference.score import predict_rows
from tests.inference.builders import PEOPLE, PEOPLE_CONTRACT, people_model

INPUT = PEOPLE_CONTRACT.without(["id", "left"])


def test_every_fault_of_a_table_is_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        check_input(INPUT, ["aeg", "city"], types={"city": "integer"})
    assert str(caught.value) == (
        "the table does not fit the model: 2 of 2 columns\n"
        "  | column  the model reads  the table has\n"
        "  | age     integer          nothing; did you mean 'aeg'?\n"
        "  | city    string           integer\n"
        "  | aeg     –                a column\n"
        "  try: give the table the columns that the model was trained on"
    )


@pytest.mark.parametrize("kind", ["integer", "float", "decimal"])
def test_numbers_serve_for_numbers_and_other_columns_do_not_matter(kind: str) -> None:
    """A whole-number column with holes is a float column in most files."""
    check_input(INPUT, ["x", "city", "age"], types={"age": kind, "x": "map"})


def test_names_alone_are_enough_for_a_first_check() -> None:
    check_input(INPUT, ("age", "city"))
    with pytest.raises(DataError, match="1 of 2 columns"):
        check_input(INPUT, ("age",))


def test_a_wide_table_of_faults_stays_readable(tmp_path: Path) -> None:
    wide = INPUT.model_copy(
        update={"columns": tuple(INPUT["age"].model_copy(update={"name": f"c{i}"}) for i in range(500))}
    )
    with pytest.raises(DataError) as caught:
        check_input(wide, [])
    assert len(str(caught.value).splitlines()) < 50


def test_one_bad_row_among_many_gets_a_text_and_the_others_their_prediction(tmp_path: Path) -> None:
    model = load_raw_model(people_model(tmp_path / "model"))
    age = np.arange(1_000, dtype=float)
    age[[17, 999]] += 0.5
    batch = pa.RecordBatch.from_pydict({"age": age, "city": ["Bonn"] * 1_000})
    probabilities, errors = predict_rows(model, batch)
    assert [row for row, error in enumerate(errors) if error] == [17, 999]
    assert errors[17] is not None
    assert errors[17].startswith("column 'age' is not integer (double: Float value 17.5")
    good = [row for row, error in enumerate(errors) if not error]
    expected = model.predict(batch.take(pa.array(good)))
    np.testing.assert_array_equal(probabilities[good], expected)
    assert (probabilities[[17, 999]] == 0).all()


def test_a_batch_of_bad_rows_only_has_errors_only(tmp_path: Path) -> None:
    model = load_raw_model(people_model(tmp_path / "model"))
    batch = pa.RecordBatch.from_pydict({"age": ["x", "y", "z"], "city": ["Bonn"] * 3})
    probabilities, errors = predict_rows(model, batch)
    assert probabilities.shape == (3, 2)
    assert all(error and "text" in error for error in errors)


def test_output_that_is_no_number_is_the_rows_error(tmp_path: Path) -> None:
    """A network that overflowed gives NaN; a class name beside it would be a lie."""
    model = load_raw_model(people_model(tmp_path / "model"))

    class Overflowing:
        def predict(self, features: np.ndarray) -> np.ndarray:
            out = np.full((len(features), 2), 0.5, np.float32)
            out[1] = np.nan
            return out

    model._estimator = Overflowing()
    probabilities, errors = predict_rows(model, PEOPLE.to_batches()[0])
    assert errors == [None, "the model's output is not a number", None, None, None, None]
    assert np.isfinite(probabilities).all()
