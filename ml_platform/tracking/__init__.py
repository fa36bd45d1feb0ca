"""Experiment tracking with MLflow: runs, models, the registry. The only part that imports mlflow."""

from __future__ import annotations

from ml_platform.tracking.fetching import fetch
from ml_platform.tracking.registry import champion, find, holdout_uses, promote, register
from ml_platform.tracking.runs import open_tracking
from ml_platform.tracking.server import check_tracking, how_to_open
from ml_platform.tracking.uris import tracking_uri

__all__ = [
    "champion",
    "check_tracking",
    "fetch",
    "find",
    "holdout_uses",
    "how_to_open",
    "open_tracking",
    "promote",
    "register",
    "tracking_uri",
]
