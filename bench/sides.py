"""The sides of a comparison: drivers in processes of their own, answering one question at a time."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.environments import OWN, PEERS, interpreter
from bench.machine import THREADS, ForeignLoad
from bench.pairing import Block

ROOT = Path(__file__).parent.parent
LOGGING = {"PREFECT_LOGGING_LEVEL": "WARNING", "PREFECT_LOGGING_TO_API_ENABLED": "false"}
"""Equal on every side: what a run says costs more than what it does."""


class WrongAnswerError(RuntimeError):
    """A side that computes something else is not measured."""


class Driver:
    """One peer's driver. A context: the process and its folder end with it."""

    def __init__(self, peer: str, api_url: str | None = None, folder: Path | None = None) -> None:
        self.peer = peer
        self._given = folder
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"bench-{peer}-"))
        environment = {**os.environ, **THREADS, **LOGGING, **_own_folders(self.folder)}
        environment["PYTHONPATH"] = os.pathsep.join([str(PEERS), *([str(ROOT)] if peer in OWN else [])])
        if api_url is not None:
            environment["PREFECT_API_URL"] = api_url
        reading, writing = os.pipe()
        self._answers = os.fdopen(reading)
        with (self.folder / "driver.log").open("ab") as log:
            self._process = subprocess.Popen(
                [interpreter(peer), PEERS / peer / "driver.py"],
                env={**environment, "BENCH_ANSWERS": str(writing)},
                pass_fds=[writing],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                text=True,
            )
        os.close(writing)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def ask(self, **question: Any) -> dict[str, Any]:
        """Raises WrongAnswerError with the end of its log when the driver ends instead."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._answers.readline()
        if not line:
            self._process.wait()
            said = (self.folder / "driver.log").read_text(errors="replace")[-3000:]
            raise WrongAnswerError(f"the driver of {self.peer} ended at {question}:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        if self._given is None:
            shutil.rmtree(self.folder, ignore_errors=True)


def _own_folders(folder: Path) -> dict[str, str]:
    """Nothing lands in the person's own folders, nothing of theirs is read."""
    return {
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "TMPDIR": str(folder),
        "ML_PLATFORM_HOME": str(folder / "platform"),
        "PREFECT_HOME": str(folder / "prefect"),
        "DAGSTER_HOME": "",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "HAMILTON_TELEMETRY_ENABLED": "false",
        "KEDRO_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
    }


def measured(work: Callable[[], float | None]) -> Block:
    """A block of work with the foreign load meanwhile. It may say how long the part that counts took."""
    load = ForeignLoad()
    began = time.perf_counter()
    seconds = work()
    elapsed = time.perf_counter() - began
    return Block(elapsed if seconds is None else seconds, load.share())


def rounds(sides: dict[str, Callable[[], Block]], count: int) -> dict[str, list[Block]]:
    """Every side once a round, forwards and backwards in turn: A B C, C B A, A B C, …"""
    found: dict[str, list[Block]] = {name: [] for name in sides}
    for at in range(count):
        for name in list(sides) if at % 2 == 0 else list(reversed(sides)):
            found[name].append(sides[name]())
    return found
