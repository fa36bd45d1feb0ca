"""Flows of typed tasks on Prefect, with Spark sessions, Horovod ranks and MLflow runs as their resources.

Every public name is here and is imported when it is first used: `import ml_platform` alone loads no
other library. What is not listed is private and may change.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_platform.engine import (
        Dag as Dag,
        EngineSpec as EngineSpec,
        Graph as Graph,
        Plan as Plan,
        Task as Task,
        crash_drill as crash_drill,
        dag as dag,
        either as either,
        map_over as map_over,
        task as task,
        when as when,
    )
    from ml_platform.errors import (
        DataError as DataError,
        DesyncError as DesyncError,
        GraphError as GraphError,
        InfrastructureError as InfrastructureError,
        PlatformError as PlatformError,
        PromotionError as PromotionError,
        RankError as RankError,
        ResourceStartError as ResourceStartError,
        SpecError as SpecError,
        StoreError as StoreError,
        TaskTimeoutError as TaskTimeoutError,
        TrackingError as TrackingError,
        UsageError as UsageError,
    )
    from ml_platform.images.read import decode_column as decode_column, read_images as read_images
    from ml_platform.images.schema import image_pixels as image_pixels, image_struct as image_struct
    from ml_platform.images.sql import register_keras_image_udf as register_keras_image_udf
    from ml_platform.images.transformer import ImageFeaturizer as ImageFeaturizer
    from ml_platform.inference.sql import register_model_udf as register_model_udf
    from ml_platform.resources.horovod.job import HorovodJob as HorovodJob, RankResults as RankResults
    from ml_platform.resources.horovod_runner import HorovodRunner as HorovodRunner
    from ml_platform.resources.progress import report as report
    from ml_platform.specs.contracts import Column as Column, Contract as Contract
    from ml_platform.specs.images import (
        BackboneSpec as BackboneSpec,
        ImageSpec as ImageSpec,
        ImageState as ImageState,
    )
    from ml_platform.specs.placements import (
        BudgetSpec as BudgetSpec,
        HorovodPlacement as HorovodPlacement,
        Placement as Placement,
        SparkPlacement as SparkPlacement,
    )
    from ml_platform.specs.references import (
        Dataset as Dataset,
        Evaluation as Evaluation,
        Metric as Metric,
        Model as Model,
        Parts as Parts,
        Predictions as Predictions,
        Table as Table,
        Verdict as Verdict,
        Version as Version,
    )
    from ml_platform.specs.resources import (
        Horovod as Horovod,
        HorovodSpec as HorovodSpec,
        Spark as Spark,
        SparkSpec as SparkSpec,
        Tracking as Tracking,
        TrackingSpec as TrackingSpec,
    )
    from ml_platform.specs.schemas import TableSchema as TableSchema
    from ml_platform.specs.sources import ReadingSpec as ReadingSpec
    from ml_platform.specs.tables import (
        CategoryFeature as CategoryFeature,
        ColumnFeatures as ColumnFeatures,
        FeatureSpec as FeatureSpec,
        FeatureState as FeatureState,
        NumericFeature as NumericFeature,
        SplitSpec as SplitSpec,
    )
    from ml_platform.specs.tracking import TrackingRun as TrackingRun
    from ml_platform.specs.training import (
        AugmentSpec as AugmentSpec,
        FineTuneSpec as FineTuneSpec,
        GateSpec as GateSpec,
        KerasSpec as KerasSpec,
        MLlibSpec as MLlibSpec,
        SklearnSpec as SklearnSpec,
        XGBoostSpec as XGBoostSpec,
    )
    from ml_platform.specs.trees import (
        BoostedTrees as BoostedTrees,
        RankingSpec as RankingSpec,
        RegressionSpec as RegressionSpec,
        TreeColumns as TreeColumns,
    )
    from ml_platform.specs.tuning import Choice as Choice, Range as Range, StudySpec as StudySpec
    from ml_platform.worker.driver_log import LogCallback as LogCallback, log_to_driver as log_to_driver
    from ml_platform.worker.main_function import current_rank as current_rank
    from ml_platform.worker.rank import Fitted as Fitted, Rank as Rank

__version__ = "0.1.0"

PUBLIC = {
    "ml_platform.engine": "Dag EngineSpec Graph Plan Task crash_drill dag either map_over task when",
    "ml_platform.specs.resources": "Horovod HorovodSpec Spark SparkSpec Tracking TrackingSpec",
    "ml_platform.resources.horovod.job": "HorovodJob RankResults",
    "ml_platform.resources.horovod_runner": "HorovodRunner",
    "ml_platform.worker.driver_log": "LogCallback log_to_driver",
    "ml_platform.worker.main_function": "current_rank",
    "ml_platform.worker.rank": "Fitted Rank",
    "ml_platform.specs.tracking": "TrackingRun",
    "ml_platform.resources.progress": "report",
    "ml_platform.specs.references": "Dataset Evaluation Metric Model Parts Predictions Table Verdict Version",
    "ml_platform.specs.contracts": "Column Contract",
    "ml_platform.specs.schemas": "TableSchema",
    "ml_platform.specs.sources": "ReadingSpec",
    "ml_platform.specs.tables": "CategoryFeature ColumnFeatures FeatureSpec FeatureState "
    "NumericFeature SplitSpec",
    "ml_platform.specs.images": "BackboneSpec ImageSpec ImageState",
    "ml_platform.images.sql": "register_keras_image_udf",
    "ml_platform.images.read": "decode_column read_images",
    "ml_platform.images.schema": "image_pixels image_struct",
    "ml_platform.images.transformer": "ImageFeaturizer",
    "ml_platform.inference.sql": "register_model_udf",
    "ml_platform.specs.trees": "BoostedTrees RankingSpec RegressionSpec TreeColumns",
    "ml_platform.specs.training": "AugmentSpec FineTuneSpec GateSpec KerasSpec MLlibSpec "
    "SklearnSpec XGBoostSpec",
    "ml_platform.specs.tuning": "Choice Range StudySpec",
    "ml_platform.specs.placements": "BudgetSpec HorovodPlacement Placement SparkPlacement",
    "ml_platform.errors": (
        "DataError DesyncError GraphError InfrastructureError PlatformError PromotionError RankError "
        "ResourceStartError SpecError StoreError TaskTimeoutError TrackingError UsageError"
    ),
}
"""Where each public name lives. The imports above say the same to type checkers; a test keeps them equal."""

_MODULES = {name: module for module, names in PUBLIC.items() for name in names.split()}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ml_platform' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
