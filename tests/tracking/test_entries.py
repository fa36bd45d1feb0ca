"""What the platform's values become in MLflow's words."""

from __future__ import annotations

import json

import pytest

from ml_platform.specs.references import Dataset
from ml_platform.specs.training import KerasSpec, XGBoostSpec
from ml_platform.tracking import entries


def test_nested_models_and_mappings_become_dotted_names() -> None:
    found = dict(entries.flat({"keras": KerasSpec(hidden=(8, 4)), "all": {"xgboost": XGBoostSpec(trees=5)}}))
    assert found["keras.hidden"] == "[8, 4]"
    assert found["all.xgboost.trees"] == 5
    assert found["keras.ranks"] is None


def test_long_values_are_cut_to_what_mlflow_takes() -> None:
    (param,) = entries.params({"text": "x" * 7_000})
    assert len(param.value) == 6_000
    assert param.value.endswith("…")


def test_names_lose_the_characters_that_mlflow_refuses() -> None:
    (point,) = entries.points({"recall/it's 🙂 50%": 1}, step=0, model=None, dataset=None)
    assert point.key == "recall/it_s _ 50_"


def test_an_input_carries_fingerprint_schema_and_size(train: Dataset) -> None:
    entity = entries.dataset_input(train, "training").dataset
    assert (entity.name, entity.source_type) == ("train", "local")
    assert entity.digest == train.fingerprint[:36]
    assert json.loads(entity.profile) == {"num_rows": 100, "num_bytes": 4096}
    assert json.loads(entity.schema)["mlflow_colspec"][0] == {
        "name": "age",
        "type": "long",
        "required": False,
    }


def test_a_models_uri_is_told_from_a_registered_one() -> None:
    from ml_platform.errors import SpecError
    from ml_platform.tracking.models import model_id

    assert model_id("models:/m-12") == "m-12"
    for uri in ("models:/retrain/3", "models:/retrain@champion", "runs:/1/model", "models:/"):
        with pytest.raises(SpecError, match="is no logged model"):
            model_id(uri)
