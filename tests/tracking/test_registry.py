"""The registry: the champion moves once, from what the gate saw, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.errors import DataError, PromotionError, SpecError
from ml_platform.specs.references import Model, Version
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking import champion, fetch, find, holdout_uses, promote, register
from ml_platform.tracking.server import client

RACER = """
import sys
from ml_platform.errors import PromotionError
from ml_platform.specs.references import Version
from ml_platform.tracking import champion, promote
champion("retrain")
print("ready", flush=True)
for line in sys.stdin:
    parts = line.rstrip("\\n").split("\\t")
    candidate, expected = (Version.model_validate_json(part) if part else None for part in parts)
    try:
        promote(candidate, expected)
        print("won", flush=True)
    except PromotionError as error:
        print("lost", str(error).replace("\\n", " "), flush=True)
"""
ROUNDS = 5


def versions(model: Model, run: TrackingRun, count: int) -> list[Version]:
    """More versions of one model; the registry tells them apart by number alone."""
    client().create_registered_model("retrain")
    marks = {"ml_platform.model": model.uri, "ml_platform.digest": model.digest}
    logged = client().get_logged_model(model.uri.removeprefix("models:/"))
    for _ in range(count):
        client().create_model_version(
            "retrain", source=logged.artifact_location, run_id=run.run_id, tags=marks
        )
    return [Version(name="retrain", version=number + 1, model=model) for number in range(count)]


def aliases() -> dict[str, int]:
    return {name: int(number) for name, number in client().get_registered_model("retrain").aliases.items()}


def test_there_is_no_champion_before_the_first_promotion(model: Model) -> None:
    assert champion("retrain") is None
    register(model, "retrain", tags={})
    assert champion("retrain") is None


def test_a_registered_version_carries_the_gates_report(model: Model) -> None:
    version = register(
        model, "retrain", tags={"gate.decision": "hold"}, description="## Held", holdout="cd" * 32
    )
    found = client().get_model_version("retrain", str(version.version))
    assert (found.tags["gate.decision"], found.description) == ("hold", "## Held")
    assert found.tags["ml_platform.digest"] == model.digest
    assert aliases() == {"challenger": 1}


def test_registering_a_model_again_finds_its_version(model: Model) -> None:
    assert register(model, "retrain", tags={}) == register(model, "retrain", tags={})
    assert len(client().search_model_versions("name='retrain'")) == 1


def test_a_promoted_version_is_the_champion_and_can_be_fetched(model: Model) -> None:
    version = register(model, "retrain", tags={})
    assert promote(version, None) == version
    assert champion("retrain") == version
    assert find("models:/retrain@champion") == find("models:/retrain/1") == version
    assert fetch("models:/retrain@champion") == fetch(version) == fetch(model)


def test_the_champion_before_is_kept_as_previous(model: Model, run: TrackingRun) -> None:
    first, second = versions(model, run, 2)
    promote(first, None)
    promote(second, first)
    assert aliases() == {"champion": 2, "previous": 1}
    tags = client().get_model_version("retrain", "2").tags
    assert (tags["ml_platform.promotion"], tags["ml_platform.replaces"]) == ("approved", "1")


def test_a_promotion_done_twice_changes_nothing(model: Model, run: TrackingRun) -> None:
    first, second = versions(model, run, 2)
    promote(first, None)
    promote(second, first)
    promote(second, first)
    assert aliases() == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("seen", [None, 2], ids=["saw none", "saw another"])
def test_a_gate_that_saw_another_champion_has_lost_the_race(
    seen: int | None, model: Model, run: TrackingRun
) -> None:
    first, second, third = versions(model, run, 3)
    promote(first, None)
    with pytest.raises(PromotionError, match="lost the race") as caught:
        promote(third, second if seen else None)
    assert caught.value.wanted == f"champion {'models:/retrain/2' if seen else 'none'}"
    assert caught.value.got == "champion models:/retrain/1"
    assert aliases() == {"champion": 1}
    assert "ml_platform.promotion" not in client().get_model_version("retrain", "3").tags


def test_each_decision_on_the_same_holdout_is_counted(model: Model, run: TrackingRun) -> None:
    assert holdout_uses("retrain", "cd" * 32) == 0
    register(model, "retrain", tags={}, holdout="cd" * 32)
    register(model, "other", tags={}, holdout="cd" * 32)
    assert holdout_uses("retrain", "cd" * 32) == 1
    assert holdout_uses("retrain", "ef" * 32) == 0


def test_a_version_of_somebody_else_is_refused(home: Path) -> None:
    client().create_registered_model("theirs")
    client().create_model_version("theirs", source="file:///somewhere/model")
    client().set_registered_model_alias("theirs", "champion", "1")
    with pytest.raises(DataError, match="version 1 of 'theirs' was not registered by ml-platform"):
        champion("theirs")


def test_a_version_whose_digest_was_changed_is_refused(model: Model) -> None:
    register(model, "retrain", tags={})
    client().set_model_version_tag("retrain", "1", "ml_platform.digest", "0" * 64)
    with pytest.raises(DataError, match="was not registered by ml-platform"):
        find("models:/retrain/1")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/retrain@champion", "MLflow has no models:/retrain@champion"),
        ("models:/retrain/7", "MLflow has no version 7 of 'retrain'"),
        ("models:/retrain/newest", "names no registered model"),
        ("retrain", "names no registered model"),
    ],
)
def test_a_uri_without_a_version_is_a_usage_error(uri: str, said: str, home: Path) -> None:
    with pytest.raises(SpecError, match=said):
        find(uri)


@pytest.mark.slow
def test_of_two_processes_that_promote_at_once_one_wins(model: Model, run: TrackingRun) -> None:
    """Both saw the same champion; the loser says so, and the alias stands on the winner."""
    candidates = versions(model, run, 2 * ROUNDS)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        assert [_line(racer) for racer in racers] == ["ready", "ready"]
        seen: Version | None = None
        for number in range(ROUNDS):
            seen = _race(racers, candidates[2 * number : 2 * number + 2], seen)
    finally:
        for racer in racers:
            racer.communicate(timeout=30)


def _race(racers: list[subprocess.Popen[str]], pair: list[Version], seen: Version | None) -> Version:
    for racer, candidate in zip(racers, pair, strict=True):
        assert racer.stdin is not None
        racer.stdin.write(f"{candidate.model_dump_json()}\t{seen.model_dump_json() if seen else ''}\n")
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.flush()
    said = [_line(racer) for racer in racers]
    assert sorted(line.split()[0] for line in said) == ["lost", "won"], said
    winner = pair[[line == "won" for line in said].index(True)]
    before = {} if seen is None else {"previous": seen.version}
    assert aliases() == {"champion": winner.version, **before}
    assert f"got: champion {winner.uri}" in next(line for line in said if line != "won")
    return winner


def _line(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()
