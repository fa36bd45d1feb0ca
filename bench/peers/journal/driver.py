"""Optuna in several processes that share a journal, as its tutorial "Easy Parallelization" says. In our own
environment: it holds the Optuna that we ask, too."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import exchange
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

WORKER = Path(__file__).parent / "worker.py"


def answer(trials: int, parallel: int, seconds: float, seed: int) -> dict[str, Any]:
    """From the start of the processes, which import Optuna, to the end of the last."""
    with tempfile.TemporaryDirectory() as folder:
        journal = str(Path(folder, "journal"))
        study = optuna.create_study(study_name="search", storage=JournalStorage(JournalFileBackend(journal)))
        given = [[str(trials // parallel), str(seconds), str(seed + at)] for at in range(parallel)]

        def work() -> list[int]:
            started = [subprocess.Popen([sys.executable, WORKER, journal, *each]) for each in given]
            return [process.wait() for process in started]

        took, codes = exchange.timed(work)
        if any(codes):
            raise RuntimeError(f"a process ended with {codes}")
        return {"seconds": took, "value": len(study.trials)}


exchange.serve(answer)
