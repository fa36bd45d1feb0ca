"""The registry: the champion moves once, from what the gate saw, or not at all."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import DataError, PromotionError, SpecError
from ml_platform.specs.references import Model, Version
from ml_platform.specs.tracking import TrackingRun
from ml_platform.tracking import champion, fetch, find, holdout_uses, ledger, promote, register, registry
from ml_platform.tracking.registry import champion_against
from ml_platform.tracking.server import client

pytestmark = pytest.mark.slow


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
    moves = [entry.move for entry in ledger.entries(client(), "retrain")]
    assert [(move.before, move.to, move.kind) for move in moves] == [(None, 1, "gate"), (1, 2, "gate")]


def test_a_challenger_that_a_run_has_promoted_is_judged_against_who_served_before(
    model: Model, run: TrackingRun
) -> None:
    first, second, third = versions(model, run, 3)
    assert champion_against(model, "retrain", promoted_by=["a"]) is None
    promote(first, None, run="a")
    assert champion_against(model, "retrain", promoted_by=["b", "a"]) is None
    assert champion_against(model, "retrain", promoted_by=["b"]) == first, "another run did"
    other = model.model_copy(update={"digest": "of another model"})
    assert champion_against(other, "retrain", promoted_by=["a"]) == first
    promote(second, first, run="b")
    assert champion_against(model, "retrain", promoted_by=["b"]) == first
    assert champion_against(model, "retrain", promoted_by=["a"]) == second, "moved since"
    client().set_registered_model_alias("retrain", "champion", str(third.version))
    assert champion_against(model, "retrain", promoted_by=["b"]) == third, "somebody moved it by hand"


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
    assert len(ledger.entries(client(), "retrain")) == 1


def test_each_challenger_that_a_holdout_judges_is_counted_once(model: Model) -> None:
    """What is judged again, as after its promotion, is no further look at the holdout."""
    another = model.model_copy(update={"uri": "models:/m-another"})
    assert holdout_uses("retrain", "cd" * 32, model) == 1
    register(model, "retrain", tags={}, holdout="cd" * 32)
    register(model, "other", tags={}, holdout="cd" * 32)
    assert holdout_uses("retrain", "cd" * 32, model) == 1
    assert holdout_uses("retrain", "cd" * 32, another) == 2
    assert holdout_uses("retrain", "ef" * 32, another) == 1


def test_a_model_that_is_judged_on_further_rows_counts_there_too(model: Model) -> None:
    """New rows of the holdout, the same training part: the same model, so the same version."""
    another = model.model_copy(update={"uri": "models:/m-another"})
    assert register(model, "retrain", tags={}, holdout="cd" * 32) == register(
        model, "retrain", tags={}, holdout="ef" * 32
    )
    assert [holdout_uses("retrain", digest * 32, another) for digest in ("cd", "ef")] == [2, 2]


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


@pytest.fixture
def killed(model: Model, run: TrackingRun, monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    """Three versions: the first serves, the promotion of the second was killed after it was entered."""
    found = versions(model, run, 3)
    promote(found[0], None)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_set_aliases", _killed)
        with pytest.raises(KeyboardInterrupt):
            promote(found[1], found[0])
    assert aliases() == {"champion": 1}
    return found


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_killed_promotion_is_finished_by_its_next_run(killed: list[Version]) -> None:
    assert promote(killed[1], killed[0]) == killed[1]
    assert aliases() == {"champion": 2, "previous": 1}
    assert [entry.done for entry in ledger.entries(client(), "retrain")] == [True, True]


def test_a_killed_promotion_is_finished_by_another_run_which_then_has_lost(killed: list[Version]) -> None:
    """It was entered first: nothing that came later may overtake it."""
    with pytest.raises(PromotionError, match="lost the race") as caught:
        promote(killed[2], killed[0])
    assert caught.value.got == "champion models:/retrain/2"
    assert aliases() == {"champion": 2, "previous": 1}


def test_a_killed_promotion_of_a_version_that_is_gone_is_given_up(killed: list[Version]) -> None:
    client().delete_model_version("retrain", "2")
    promote(killed[2], killed[0])
    assert aliases() == {"champion": 3, "previous": 1}


def test_an_alias_that_a_person_moved_is_respected(killed: list[Version]) -> None:
    client().set_registered_model_alias("retrain", "champion", "3")
    with pytest.raises(PromotionError, match="lost the race"):
        promote(killed[1], killed[0])
    assert aliases()["champion"] == 3


def test_one_that_slept_between_its_entry_and_the_alias_sets_what_later_entries_say(
    model: Model, run: TrackingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that was suspended: the alias never stays on what it meant to set."""
    first, second, third = versions(model, run, 3)
    promote(first, None)
    set_aliases = registry._set_aliases

    def meanwhile(*arguments: Any) -> None:
        monkeypatch.setattr(registry, "_set_aliases", set_aliases)
        monkeypatch.setattr(registry, "_turn", lambda name: nullcontext())
        with suppress(PromotionError):
            promote(third, first)
        promote(third, second)
        set_aliases(*arguments)

    monkeypatch.setattr(registry, "_set_aliases", meanwhile)
    with pytest.raises(PromotionError, match="lost the race"):
        promote(second, first)
    assert aliases() == {"champion": 3, "previous": 2}
    assert [entry.move.to for entry in ledger.entries(client(), "retrain")] == [1, 2, 3]


def test_a_tag_that_another_process_sets_at_the_same_time_is_set(home: Path) -> None:
    """MLflow's own upsert fails then; asked again, it finds the tag there."""
    from mlflow.exceptions import MlflowException

    answers = iter([MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed"), None])

    def upsert() -> None:
        if error := next(answers):
            raise error

    ledger.upsert("set a tag", upsert)
    assert list(answers) == []
