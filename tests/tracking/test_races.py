"""Two processes promote at once, fifty times on each kind of store: one wins, the other one knows who did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.resources.ports import free_port
from ml_platform.specs.contracts import Contract
from ml_platform.specs.references import Model, Version
from ml_platform.tracking import ledger
from ml_platform.tracking.server import client
from tests.tracking.conftest import serving

pytestmark = pytest.mark.slow

RACER = """
import os, sys
from ml_platform.errors import PromotionError
from ml_platform.specs.references import Version
from ml_platform.tracking.registry import promote
from ml_platform.tracking.server import client
client()
print("ready", flush=True)
for line in sys.stdin:
    os.environ["MLFLOW_TRACKING_URI"], candidate, expected = line.rstrip("\\n").split("\\t")
    pair = [Version.model_validate_json(part) if part else None for part in (candidate, expected)]
    try:
        promote(*pair)
        print("won", flush=True)
    except Exception as error:
        said = "lost" if isinstance(error, PromotionError) else "failed"
        print(said, getattr(error, "exit_code", 1), " ".join(str(error).split()), flush=True)
"""
ROUNDS = 50


@pytest.fixture(scope="module")
def racers(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[subprocess.Popen[str]]]:
    """Each with a folder of its own for locks: as on two machines, but for a database that both can open."""
    started = []
    for at in range(2):
        folder = tmp_path_factory.mktemp(f"machine-{at}")
        shutil.copyfile(migrated, folder / "mlflow.db")
        own = {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(folder)}
        racer = subprocess.Popen(
            [sys.executable, "-c", RACER],
            env={**os.environ, **own, "ML_PLATFORM_HOME": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(racer)
    try:
        assert [_line(racer) for racer in started] == ["ready", "ready"]
        yield started
    finally:
        for racer in started:
            racer.communicate(timeout=60)


@pytest.fixture(params=["sqlite", pytest.param("server", marks=pytest.mark.long)])
def uri(
    request: pytest.FixtureRequest, migrated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    shutil.copyfile(migrated, tmp_path / "mlflow.db")
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    if request.param == "sqlite":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        yield os.environ["MLFLOW_TRACKING_URI"]
        return
    with serving(tmp_path, free_port()) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address


def test_of_two_processes_that_promote_at_once_one_wins(
    racers: list[subprocess.Popen[str]], uri: str
) -> None:
    """Both saw the same champion. The alias stands on the winner, `previous` on the champion before, and the
    ledger has one line for each round."""
    versions = _versions(3)
    seen: Version | None = None
    won = []
    for _ in range(ROUNDS):
        pair = [version for version in versions if version != seen][:2]
        seen = _race(racers, uri, pair, seen)
        won.append(seen.version)
    moves = [entry.move for entry in ledger.entries(client(), "retrain")]
    assert [move.to for move in moves] == won
    assert [move.before for move in moves] == [None, *won[:-1]]


def _versions(count: int) -> list[Version]:
    """The registry tells them apart by number alone."""
    client().create_registered_model("retrain")
    for _ in range(count):
        client().create_model_version("retrain", source="ml-platform:///test")
    contract = Contract(columns=())
    model = Model(uri="models:/m-1", family="keras", run_id="r", digest="d", contract=contract, classes=())
    return [Version(name="retrain", version=number + 1, model=model) for number in range(count)]


def _race(
    racers: list[subprocess.Popen[str]], uri: str, pair: list[Version], seen: Version | None
) -> Version:
    for racer, candidate in zip(racers, pair, strict=True):
        assert racer.stdin is not None
        before = seen.model_dump_json() if seen else ""
        racer.stdin.write(f"{uri}\t{candidate.model_dump_json()}\t{before}\n")
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.flush()
    said = [_line(racer) for racer in racers]
    assert sorted(line.split()[0] for line in said) == ["lost", "won"], said
    winner = pair[[line == "won" for line in said].index(True)]
    previous = {} if seen is None else {"previous": seen.version}
    found = client().get_registered_model("retrain").aliases
    assert {name: int(number) for name, number in found.items()} == {"champion": winner.version, **previous}
    loser = next(line for line in said if line != "won")
    assert loser.startswith("lost 4 promotion of")
    assert f"got: champion {winner.uri}" in loser
    return winner


def _line(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()
