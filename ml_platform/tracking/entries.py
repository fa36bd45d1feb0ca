"""Values on their way into MLflow: flattened, cut and named as MLflow takes them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ml_platform.specs.references import Dataset, Model
from ml_platform.tracking.models import model_id
from ml_platform.tracking.signatures import dataset_schema

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric, Param, RunTag

PARAM_CHARACTERS = 6_000
TAG_CHARACTERS = 8_000
KEY_CHARACTERS = 250
DIGEST_CHARACTERS = 36
NOT_IN_KEYS = re.compile(r"[^/\w.\- :]")
"""Characters that MLflow takes in no name of a parameter or metric."""


def flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings and pydantic models, with dotted names. Lists are leaves, as JSON.

    >>> list(flat({"keras": {"epochs": 3, "hidden": [8, 4]}}))
    [('keras.epochs', 3), ('keras.hidden', '[8, 4]')]
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        for name, below in value.items():
            yield from flat(below, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, (list, tuple)):
        yield prefix, json.dumps(value, default=_plain)
    else:
        yield prefix, value


def params(given: Mapping[str, object]) -> list[Param]:
    """Parameters as MLflow takes them."""
    from mlflow.entities import Param

    return [Param(_key(name), _cut(value, PARAM_CHARACTERS)) for name, value in flat(given)]


def tags(given: Mapping[str, object]) -> list[RunTag]:
    """Tags as MLflow takes them."""
    from mlflow.entities import RunTag

    return [RunTag(name, _cut(value, TAG_CHARACTERS)) for name, value in given.items()]


def points(
    given: Mapping[str, float], *, step: int, model: Model | None, dataset: Dataset | None
) -> list[Metric]:
    """Metrics at a step, now; of a logged model and on a data set when they are named."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    of = {} if model is None else {"model_id": model_id(model.uri)}
    on = {} if dataset is None else {"dataset_name": _name(dataset), "dataset_digest": _digest(dataset)}
    return [Metric(_key(name), float(value), now_ms, step, **of, **on) for name, value in given.items()]


def dataset_input(dataset: Dataset, context: str) -> DatasetInput:
    """A data set that a run read, and what for."""
    from mlflow.entities import DatasetInput, InputTag

    return DatasetInput(dataset=_entity(dataset), tags=[InputTag("mlflow.data.context", context)])


def _entity(dataset: Dataset) -> Any:
    from mlflow.entities import Dataset as Entity

    scheme = dataset.uri.partition("://")[0]
    return Entity(
        name=_name(dataset),
        digest=_digest(dataset),
        source_type="local" if scheme == "file" else scheme,
        source=json.dumps({"uri": dataset.uri}),
        schema=dataset_schema(dataset),
        profile=json.dumps({"num_rows": dataset.rows, "num_bytes": dataset.bytes}),
    )


def _name(dataset: Dataset) -> str:
    """Name of a data set: the folder above the one that its writer made, `…/<name>/<uuid>`."""
    parts = [part for part in dataset.uri.partition("://")[2].split("/") if part]
    return parts[-2] if len(parts) > 1 else dataset.uri


def _digest(dataset: Dataset) -> str:
    return dataset.fingerprint[:DIGEST_CHARACTERS]


def _key(name: str) -> str:
    return NOT_IN_KEYS.sub("_", name)[:KEY_CHARACTERS]


def _cut(value: object, characters: int) -> str:
    text = str(value)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)
