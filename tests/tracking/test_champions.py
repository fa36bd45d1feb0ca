"""The history of a model's champions, and the way back: by the protocol of a promotion, and it stays so."""

from __future__ import annotations

import json

import pytest

from ml_platform.cli.main import main
from ml_platform.errors import PromotionError, SpecError
from ml_platform.specs.references import Model, Version
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking import promote, registry
from ml_platform.tracking.champions import history, rollback, rolled_back
from ml_platform.tracking.server import client
from tests.tracking.test_registry import aliases, versions

pytestmark = pytest.mark.slow


@pytest.fixture
def three(model: Model, run: TrackingRun) -> list[Version]:
    """Three versions that became champion one after the other."""
    found = versions(model, run, 3)
    client().set_model_version_tag("retrain", "3", "gate.decision", "promote")
    for version, before in zip(found, [None, *found[:2]], strict=True):
        promote(version, before, why=f"Better, said the gate of {version.version}.", run="brave-otter")
    return found


def test_the_history_says_who_when_by_what_and_why(three: list[Version], run: TrackingRun) -> None:
    reigns = history("retrain")
    assert [(reign.version, reign.before, reign.kind) for reign in reigns] == [
        (1, None, "gate"),
        (2, 1, "gate"),
        (3, 2, "gate"),
    ]
    last = reigns[-1]
    assert (last.why, last.flow_run) == ("Better, said the gate of 3.", "brave-otter")
    assert (last.mlflow_run, last.verdict) == (run.run_id, "promote")
    assert reigns[0].since <= last.since


def test_a_model_without_champions_names_those_that_have_some(three: list[Version]) -> None:
    with pytest.raises(SpecError, match="no version of 'retrian' has ever become champion") as caught:
        history("retrian")
    assert caught.value.wanted == "one of retrain"


def test_rolling_back_twice_goes_back_two_steps(three: list[Version]) -> None:
    move = rollback("retrain", why="it scores nonsense")
    assert (move.before, move.to) == (3, 2)
    assert aliases() == {"champion": 2, "previous": 3}
    assert rollback("retrain").to == 1
    assert [reign.kind for reign in history("retrain")] == ["gate", "gate", "gate", "rollback", "rollback"]
    with pytest.raises(SpecError, match="nothing was champion of 'retrain' before version 1"):
        rollback("retrain")


def test_a_dry_run_changes_nothing(three: list[Version]) -> None:
    assert rollback("retrain", 1, dry_run=True).to == 1
    assert aliases()["champion"] == 3
    assert len(history("retrain")) == 3


@pytest.mark.parametrize(("to", "said"), [(3, "is the champion already"), (9, "MLflow has no version 9")])
def test_a_version_that_cannot_be_gone_back_to_is_refused(three: list[Version], to: int, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rollback("retrain", to)


def test_a_model_that_was_taken_back_is_known_until_somebody_makes_it_champion_again(
    three: list[Version], model: Model
) -> None:
    """What judges the next challenger: the gate would promote the same model every night."""
    assert rolled_back("retrain") == {}
    rollback("retrain", why="it scores nonsense")
    ((uri, said),) = rolled_back("retrain").items()
    assert uri == model.uri
    assert said.endswith(": it scores nonsense")
    rollback("retrain", 3)
    assert [entry for entry in rolled_back("retrain").values() if "nonsense" in entry] == []


def test_a_rollback_that_meets_a_promotion_has_lost(
    three: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what it reads and what it enters, another one is faster."""

    def after_another(name: str, move: registry.Move) -> None:
        registry.change_champion(name, registry.Move(1, 3, "rollback"))
        registry.change_champion(name, move)

    monkeypatch.setattr("ml_platform.tracking.champions.change_champion", after_another)
    with pytest.raises(PromotionError, match="lost the race"):
        rollback("retrain", 2)
    assert aliases()["champion"] == 1


def test_the_commands_say_what_is_and_what_to_do_next(
    three: list[Version], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["registry", "rollback", "retrain", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would make version 2 champion of retrain, in place of 3; nothing was done" in out
    assert "to do it: python -m ml_platform registry rollback retrain" in out
    assert main(["registry", "rollback", "retrain", "--why", "it scores nonsense"]) == 0
    assert "python -m flows.batch_inference --model models:/retrain@champion" in capsys.readouterr().out
    assert main(["registry", "history", "retrain"]) == 0
    out = capsys.readouterr().out
    assert "it scores nonsense" in " ".join(out.split())
    assert "models:/retrain@champion is version 2" in out
    assert main(["registry", "history", "retrain", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["champion"], [reign["version"] for reign in told["history"]]) == (2, [1, 2, 3, 2])
    assert main(["registry", "rollback", "nothing"]) == 2
    assert "'nothing' has no champion" in capsys.readouterr().err


def test_an_alias_that_was_set_by_hand_is_said(
    three: list[Version], capsys: pytest.CaptureFixture[str]
) -> None:
    client().set_registered_model_alias("retrain", "champion", "1")
    assert main(["registry", "history", "retrain"]) == 0
    assert "models:/retrain@champion is version 1, set in MLflow by hand" in capsys.readouterr().out
