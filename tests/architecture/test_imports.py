"""`import ml_platform` is light, its public names are listed, and no part of it uses them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import ml_platform

ROOT = Path(ml_platform.__file__).parent
HEAVY = {
    "horovod",
    "keras",
    "mlflow",
    "numpy",
    "pandas",
    "prefect",
    "pyarrow",
    "pyspark",
    "tensorflow",
    "xgboost",
}
PUBLIC = """
AugmentSpec BackboneSpec BoostedTrees BudgetSpec CategoryFeature Choice Column ColumnFeatures Contract Dag
DataError Dataset DesyncError EngineSpec Evaluation FeatureSpec FeatureState FineTuneSpec Fitted GateSpec
Graph GraphError Horovod HorovodJob HorovodPlacement HorovodRunner HorovodSpec ImageFeaturizer ImageSpec
ImageState InfrastructureError KerasSpec LogCallback MLlibSpec Metric Model NumericFeature Parts Placement
Plan PlatformError Predictions PromotionError Range Rank RankError RankResults RankingSpec ReadingSpec
RegressionSpec ResourceStartError SklearnSpec Spark SparkPlacement SparkSpec SpecError SplitSpec StoreError
StudySpec Table TableSchema Task TaskTimeoutError Tracking TrackingError TrackingRun TrackingSpec
TreeColumns UsageError Verdict Version XGBoostSpec __version__ crash_drill current_rank dag decode_column
either image_pixels image_struct log_to_driver map_over read_images register_keras_image_udf
register_model_udf report task when
"""


def loaded_by(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has after the statement."""
    code = (
        f"{statement}\nimport json, sys; print(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    return set(json.loads(said.stdout.splitlines()[-1]))


def test_importing_the_package_loads_no_heavy_library() -> None:
    """Every command, rank and executor starts with this import."""
    assert not loaded_by("import ml_platform") & (HEAVY | {"pydantic", "rich"})


def test_specs_and_errors_load_no_heavy_library() -> None:
    assert not loaded_by("from ml_platform import Dataset, KerasSpec, SpecError") & HEAVY


def test_a_rank_loads_neither_prefect_nor_spark_nor_mlflow() -> None:
    assert not loaded_by("import ml_platform.worker.rank") & {"prefect", "pyspark", "mlflow"}


def test_the_doctor_loads_no_heavy_library() -> None:
    """It has to answer within seconds, also where one of them does not even import."""
    statement = "from ml_platform.cli.doctor import examine; examine()"
    assert not loaded_by(statement) & (HEAVY - {"numpy"})


def test_the_public_names_are_these() -> None:
    """A name that is added or goes is a decision, not an accident."""
    assert sorted(ml_platform.__all__) == sorted(PUBLIC.split())


@pytest.mark.parametrize("name", sorted(PUBLIC.split()))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(ml_platform, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sparkle'"):
        ml_platform.__getattr__("Sparkle")


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    """The lazy table and the imports under TYPE_CHECKING say the same."""
    told = {
        (node.module, alias.name)
        for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ml_platform")
        for alias in node.names
    }
    assert told == {(module, name) for module, names in ml_platform.PUBLIC.items() for name in names.split()}


def test_no_part_of_the_product_uses_the_public_names() -> None:
    """They lie above all parts: a library that took `task` from here would import the engine."""
    users = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "ml_platform" and file.parent != ROOT
        if any(alias.name in ml_platform.__all__ for alias in node.names)
    ]
    assert users == []
