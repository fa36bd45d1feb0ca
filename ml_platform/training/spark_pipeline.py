"""Pipelines of MLlib, trained on Spark executors, and kept as arrays that need no Spark to predict."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ml_platform.errors import SpecError
from ml_platform.specs.references import Dataset
from ml_platform.specs.tables import FeatureState
from ml_platform.specs.training import EstimatorName, MLlibSpec
from ml_platform.store.spark_failures import spark_failures
from ml_platform.training.learned import Learned, loss_name
from ml_platform.training.trees import labelled_rows, weighted

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.ml import PipelineModel
    from pyspark.sql import DataFrame, SparkSession

TOLERANCE = 1e-8
LEAST_PROBABILITY = 1e-15
NODE_DATA = "org.apache.spark.ml.tree.DecisionTreeModelReadWrite$NodeData$"
"""What MLlib itself writes a tree as: one object per node, the left branch first."""

FIELD = ("com.fasterxml.jackson.annotation.PropertyAccessor", "FIELD")
ANY = ("com.fasterxml.jackson.annotation.JsonAutoDetect$Visibility", "ANY")


def train_pipeline(
    spark: SparkSession, train: Dataset, validation: Dataset, state: FeatureState, spec: MLlibSpec
) -> Learned:
    """Fit a `pyspark.ml.Pipeline`: principal components, where asked for, then the estimator.

    Boosting stops early on the validation part and keeps the rounds up to the best.

    Args:
        train: Columns `label` (index of the class, or number) and `features` (packed, `state.width` values).
        validation: The same columns. Rows of classes that train does not know are left out.
    Raises:
        SpecError: Boosting is asked for more than two classes, or for more components than features.
        DataError: There are fewer than two classes, or one without a row to train on.
        StoreError: The Spark job failed.
    """
    _check(spec, state)
    with spark_failures("training with MLlib failed on Spark"):
        rows = _vectors(labelled_rows(spark, train, validation, state, spec.partitions), state, spec).cache()
        try:
            fitted = _fit(rows, train, state, spec)
            history = _history(fitted, rows, state)
        finally:
            rows.unpersist()
        *before, model = fitted.stages
        projection = _projection(before)
        arrays = _arrays(model, projection, state)
        return Learned(_file(arrays), history, *_importance(model, arrays, projection), facts=_facts(model))


def _check(spec: MLlibSpec, state: FeatureState) -> None:
    if spec.estimator == "boosting" and len(state.classes) > 2:
        raise SpecError(
            "boosting in MLlib tells two classes apart, no more",
            got=f"{len(state.classes)} classes",
            hint="estimator 'forest' or 'linear', or the families xgboost and sklearn",
        )
    if spec.components is not None and spec.components > state.width:
        raise SpecError("there are fewer features than components", wanted=spec.components, got=state.width)


def _logistic(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.classification import LogisticRegression

    return LogisticRegression(**_of_linear(spec, rows))


def _ridge(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.regression import LinearRegression

    return LinearRegression(**_of_linear(spec, rows))


def _forest_of_classes(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.classification import RandomForestClassifier

    return RandomForestClassifier(numTrees=spec.trees, **_of_trees(spec))


def _forest_of_numbers(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.regression import RandomForestRegressor

    return RandomForestRegressor(numTrees=spec.trees, **_of_trees(spec))


def _boosted_classes(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.classification import GBTClassifier

    return GBTClassifier(**_of_boosting(spec), **_of_trees(spec))


def _boosted_numbers(spec: MLlibSpec, rows: int) -> Any:
    from pyspark.ml.regression import GBTRegressor

    return GBTRegressor(**_of_boosting(spec), **_of_trees(spec))


def _of_linear(spec: MLlibSpec, rows: int) -> dict[str, Any]:
    # MLlib's loss is a mean over rows; the spec's penalty is one on the sum, as scikit-learn's is.
    return {
        "maxIter": spec.steps,
        "regParam": spec.l2 / rows,
        "elasticNetParam": 0.0,
        "standardization": False,
        "tol": TOLERANCE,
    }


def _of_trees(spec: MLlibSpec) -> dict[str, Any]:
    return {"maxDepth": spec.depth, "minInstancesPerNode": spec.leaf_rows, "seed": spec.seed}


def _of_boosting(spec: MLlibSpec) -> dict[str, Any]:
    return {"maxIter": spec.trees, "stepSize": spec.rate, "validationIndicatorCol": "is_validation"}


ESTIMATORS: Mapping[tuple[EstimatorName, Literal["classes", "number"]], Callable[[MLlibSpec, int], Any]] = {
    ("linear", "classes"): _logistic,
    ("linear", "number"): _ridge,
    ("forest", "classes"): _forest_of_classes,
    ("forest", "number"): _forest_of_numbers,
    ("boosting", "classes"): _boosted_classes,
    ("boosting", "number"): _boosted_numbers,
}
"""What a spec's `estimator` stands for, by what the label is."""


def _vectors(rows: DataFrame, state: FeatureState, spec: MLlibSpec) -> DataFrame:
    from pyspark.ml.functions import array_to_vector
    from pyspark.sql import functions as F  # noqa: N812

    if spec.class_weight == "balanced" and state.classes:
        rows = weighted(rows, state.balanced_weights)
    else:
        rows = rows.withColumn("weight", F.lit(1.0))
    return rows.select(
        F.col("label").cast("double"),
        array_to_vector(F.col("features")).alias("features"),
        "is_validation",
        "weight",
    )


def _fit(rows: DataFrame, train: Dataset, state: FeatureState, spec: MLlibSpec) -> PipelineModel:
    from pyspark.ml import Pipeline
    from pyspark.ml.feature import PCA

    known = rows.where("not is_validation")
    stages: list[Any] = []
    if spec.components is not None:
        # Fitted here, and not by the pipeline: that one may see the rows held out, for boosting to stop by.
        stages.append(PCA(k=spec.components, inputCol="features", outputCol="components").fit(known))
    estimator = ESTIMATORS[spec.estimator, "classes" if state.target is None else "number"](spec, train.rows)
    estimator.setWeightCol("weight")
    estimator.setFeaturesCol("components" if stages else "features")
    return Pipeline(stages=[*stages, estimator]).fit(rows if spec.estimator == "boosting" else known)


def _history(fitted: PipelineModel, rows: DataFrame, state: FeatureState) -> dict[str, list[float]]:
    """Losses of the finished model on both parts; of boosting those on validation by round."""
    name = loss_name(state.problem)
    found = {row["is_validation"]: [float(row["loss"])] for row in _losses(fitted.transform(rows), state)}
    history = {f"train-{name}": found[False], f"validation-{name}": found[True]}
    model = fitted.stages[-1]
    if hasattr(model, "evaluateEachIteration"):
        held_out = rows.where("is_validation")
        for stage in fitted.stages[:-1]:
            held_out = stage.transform(held_out)
        if state.target is None:
            # MLlib's loss is twice the log loss.
            curve = [value / 2 for value in model.evaluateEachIteration(held_out)]
        else:
            curve = [float(np.sqrt(value)) for value in model.evaluateEachIteration(held_out, "squared")]
        history = {f"validation-{name}": curve}
    return history


def _losses(predicted: DataFrame, state: FeatureState) -> list[Any]:
    from pyspark.ml.functions import vector_to_array
    from pyspark.sql import functions as F  # noqa: N812

    if state.target is None:
        right = F.element_at(vector_to_array(F.col("probability")), F.col("label").cast("int") + 1)
        loss = F.avg(-F.log(F.greatest(right, F.lit(LEAST_PROBABILITY))))
    else:
        loss = F.sqrt(F.avg(F.pow(F.col("prediction") - F.col("label"), F.lit(2.0))))
    return predicted.groupBy("is_validation").agg(loss.alias("loss")).collect()


def _projection(before: list[Any]) -> NDArray[np.float64] | None:
    """Shape (features, components): what the rows are multiplied with first."""
    return before[0].pc.toArray() if before else None


def _arrays(
    model: Any, projection: NDArray[np.float64] | None, state: FeatureState
) -> dict[str, NDArray[Any]]:
    """What `ml_platform.inference.mllib_family` reads."""
    width = {"width": np.array(state.width)}
    if hasattr(model, "trees"):
        return {**width, **_nodes(model, state), **({} if projection is None else {"projection": projection})}
    if state.target is None:
        coefficients, intercepts = model.coefficientMatrix.toArray(), model.interceptVector.toArray()
    else:
        coefficients, intercepts = model.coefficients.toArray()[None], np.array([model.intercept])
    if projection is not None:
        coefficients = coefficients @ projection.T
    return {**width, "coefficients": coefficients, "intercepts": intercepts}


def _nodes(model: Any, state: FeatureState) -> dict[str, NDArray[Any]]:
    """All nodes of all trees, one tree after the other."""
    boosting = hasattr(model, "evaluateEachIteration")
    by_number = boosting or state.target is not None
    trees = _trees(model)
    weights = np.array(model.treeWeights) / (1 if boosting else len(trees))
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    values: list[NDArray[np.float64]] = []
    roots: list[int] = []
    for nodes, weight in zip(trees, weights, strict=True):
        roots.append(start := len(feature))
        for at, node in enumerate(nodes, start):
            inner = node["leftChild"] >= 0
            feature.append(node["split"]["featureIndex"] if inner else 0)
            threshold.append(node["split"]["leftCategoriesOrThreshold"][0] if inner else 0.0)
            left.append(start + node["leftChild"] if inner else at)
            right.append(start + node["rightChild"] if inner else at)
            value = np.array([node["prediction"]] if by_number else node["impurityStats"])
            values.append(weight * value if by_number else weight * value / value.sum())
    return {
        "feature": np.array(feature, np.int32),
        "threshold": np.array(threshold, np.float64),
        "left": np.array(left, np.int32),
        "right": np.array(right, np.int32),
        "values": np.array(values, np.float64),
        "roots": np.array(roots, np.int32),
    }


def _trees(model: Any) -> list[list[dict[str, Any]]]:
    """The nodes of each tree: one call of the JVM per tree, not several per node."""
    from pyspark.sql import SparkSession

    jvm = SparkSession.active()._jvm
    assert jvm is not None

    def static(cls: str, field: str) -> Any:
        return jvm.java.lang.Class.forName(cls).getField(field).get(None)

    as_json = jvm.com.fasterxml.jackson.databind.ObjectMapper()
    as_json.registerModule(jvm.com.fasterxml.jackson.module.scala.DefaultScalaModule())
    # Fields, not getters: SplitData.getSplit is no property, and fails for a leaf.
    as_json.configure(jvm.com.fasterxml.jackson.databind.MapperFeature.AUTO_DETECT_GETTERS, False)
    as_json.setVisibility(static(*FIELD), static(*ANY))
    node_data = static(NODE_DATA, "MODULE$")
    found = []
    for tree in model.trees:
        nodes = json.loads(as_json.writeValueAsString(node_data.build(tree._java_obj.rootNode(), 0)._1()))
        found.append(sorted(nodes, key=lambda node: node["id"]))
    return found


def _importance(
    model: Any, arrays: Mapping[str, NDArray[Any]], projection: NDArray[np.float64] | None
) -> tuple[dict[int, float], str]:
    if "coefficients" in arrays:
        values, measure = np.abs(arrays["coefficients"]).mean(axis=0), "mean size of coefficients"
    elif projection is None:
        values, measure = model.featureImportances.toArray(), "share of the impurity that splits took away"
    else:
        return {}, ""
    return {number: float(value) for number, value in enumerate(values) if value}, measure


def _facts(model: Any) -> dict[str, float]:
    if hasattr(model, "trees"):
        return {"trees": float(model.getNumTrees)}
    return {"steps": float(model.summary.totalIterations)} if model.hasSummary else {}


def _file(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
