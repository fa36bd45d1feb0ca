"""Which column becomes what, and what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from ml_platform.errors import SpecError
from ml_platform.features.treatments import FITTING, beside_split, check_names, treated_columns
from ml_platform.resources.progress import Progress, listening
from ml_platform.specs.contracts import RAW_TYPES, Column, Contract
from ml_platform.specs.tables import ColumnFeatures, FeatureSpec, SplitSpec

CONTRACT = Contract(
    columns=(
        Column(name="age", type="integer"),
        Column(name="since", type="date"),
        Column(name="city", type="string"),
        Column(name="member", type="boolean"),
        Column(name="photo", type="binary"),
        Column(name="left", type="string"),
    ),
    label="left",
)


def treats(spec: FeatureSpec) -> dict[str, str]:
    return {each.name: each.treat for each in treated_columns(CONTRACT, spec)}


def test_every_raw_type_has_a_treatment() -> None:
    assert set(FITTING) == RAW_TYPES


def test_types_decide_and_the_spec_decides_otherwise() -> None:
    assert treats(FeatureSpec()) == {
        "age": "number",
        "since": "time",
        "city": "category",
        "member": "number",
    }
    spec = FeatureSpec(drop=("city",), columns={"age": ColumnFeatures(treat="category", vocabulary=7)})
    assert treats(spec) == {"age": "category", "since": "time", "member": "number"}
    assert treated_columns(CONTRACT, spec)[0].vocabulary == 7


def test_identifiers_are_left_out_and_said_unless_somebody_says_what_they_are() -> None:
    columns = (
        Column(name="row", type="integer", kind="identifier"),
        Column(name="city", type="string", kind="category"),
    )
    contract = Contract(columns=columns)
    heard: list[Progress] = []
    with listening(heard.append):
        assert [each.name for each in treated_columns(contract, FeatureSpec())] == ["city"]
    assert "1 column that identifies rows: row" in heard[-1].message
    asked = FeatureSpec(columns={"row": ColumnFeatures(treat="number")})
    assert [each.treat for each in treated_columns(contract, asked)] == ["number", "category"]


@pytest.mark.parametrize("split", [SplitSpec(group="city"), SplitSpec(key_columns=("city",))], ids=str)
def test_the_column_that_keeps_rows_apart_is_no_feature_unless_asked_for(split: SplitSpec) -> None:
    """The holdout has other values of it: what is learnt of them cannot be right there."""
    assert set(treats(beside_split(FeatureSpec(), split, "left"))) == {"age", "since", "member"}
    asked = FeatureSpec(columns={"city": ColumnFeatures(treat="text")}, interactions=(("city", "age"),))
    assert beside_split(asked, split, "left") is asked
    dropped = FeatureSpec(drop=("city",))
    assert beside_split(dropped, split, "left") is dropped
    with pytest.raises(SpecError, match=r"'city', which deals the rows(.|\n)*features.columns.city.treat"):
        beside_split(FeatureSpec(interactions=(("city", "age"),)), split, "left")


@pytest.mark.parametrize(
    "split", [SplitSpec(), SplitSpec(time="since"), SplitSpec(key_columns=("city", "since"))], ids=str
)
def test_columns_whose_values_lie_in_every_part_stay_features(split: SplitSpec) -> None:
    """Of a time, its hour and weekday; of several keys, each alone."""
    assert beside_split(FeatureSpec(), split, "left") == FeatureSpec()


def test_booleans_are_not_scaled_unless_asked() -> None:
    spec = FeatureSpec(scale="robust", log="always", columns={"age": ColumnFeatures(log="never")})
    found = {each.name: (each.scale, each.log) for each in treated_columns(CONTRACT, spec)}
    assert found == {
        "age": ("robust", "never"),
        "since": ("robust", "always"),
        "city": ("robust", "always"),
        "member": ("none", "never"),
    }
    asked = FeatureSpec(columns={"member": ColumnFeatures(scale="standard")})
    assert treated_columns(CONTRACT, asked)[-1].scale == "standard"


def test_a_treatment_that_does_not_fit_is_refused_with_those_that_do() -> None:
    with pytest.raises(SpecError) as caught:
        treats(FeatureSpec(columns={"city": ColumnFeatures(treat="number")}))
    text = str(caught.value)
    assert "column 'city' cannot be treated as number" in text
    assert "wanted: category, text, target: it is stored as string" in text
    assert "got: features.columns.city.treat = number" in text
    assert "try:" in text


def test_interactions_are_pairs_of_columns_that_are_used() -> None:
    """A command line names them one after the other."""
    flat = FeatureSpec.model_validate({"interactions": ["age", "city", "age", "member"]})
    assert flat.interactions == (("age", "city"), ("age", "member"))
    assert FeatureSpec.model_validate({"interactions": [["age", "city"]]}).interactions == (("age", "city"),)
    with pytest.raises(ValidationError, match="'member' has no partner"):
        FeatureSpec.model_validate({"interactions": ["age", "city", "member"]})
    with pytest.raises(SpecError, match=r"interactions names column 'sity'"):
        treats(FeatureSpec(interactions=(("age", "sity"),)))
    with pytest.raises(SpecError, match=r"which features.drop leaves out"):
        treats(FeatureSpec(interactions=(("age", "city"),), drop=("city",)))


def test_an_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"features.columns names column 'sity'(.|\n)*did you mean 'city'"):
        check_names(CONTRACT.names, "left", FeatureSpec(columns={"sity": ColumnFeatures()}))
    with pytest.raises(SpecError, match=r"features.drop names 'left': that is the label"):
        check_names(CONTRACT.names, "left", FeatureSpec(drop=("left",)))


@pytest.mark.slow
def test_the_plan_of_a_flow_refuses_a_target_encoding_of_what_is_no_category(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The file says what its columns are, so that nothing needs to run for it."""
    from flows.retrain import retrain
    from ml_platform.cli.dag_command import main

    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    ages = pa.table({"age": [1.5, 2.5], "city": ["a", "b"], "left": ["yes", "no"]})
    pq.write_table(ages, tmp_path / "people.parquet")
    asked = ["plan", "--source", str(tmp_path / "people.parquet"), "--label", "left"]
    assert main(retrain, [*asked, "--features.columns.city.treat", "target"]) == 0
    assert main(retrain, [*asked, "--features.columns.age.treat", "target"]) == 2
    said = capfd.readouterr().err
    assert "column 'age' cannot be treated as target" in said
    assert "wanted: number, category: it is stored as float" in said
    assert not list((tmp_path / "home").rglob("*.parquet"))
