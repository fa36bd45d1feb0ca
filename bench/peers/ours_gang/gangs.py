"""Ranks as `HorovodRunner` and the engine launch them; each adds up one number with the others."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ml_platform.resources.horovod import HorovodJob, open_job
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec


def added_up(rank: Any) -> list[int]:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    return [hvd.rank(), int(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))]


def opened(into: ExitStack, ranks: int, backend: Any) -> HorovodJob:
    spec = HorovodSpec(ranks=ranks, backend=backend)
    folder = Path(tempfile.mkdtemp())
    return into.enter_context(open_job(spec, HorovodPlacement(), log_folder=folder))
