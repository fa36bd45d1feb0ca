"""No edit that changes what a task does may be missed; no edit that only a reader notices may cost a run."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from ml_platform.engine.keys import as_declared
from tests.engine.mutations.code_edits import CODE_EDITS
from tests.engine.mutations.keys import ARGUMENTS
from tests.engine.mutations.policies import CLOSEST, POLICIES
from tests.engine.mutations.project import write_project
from tests.engine.mutations.report import ROOT, Outcome, keys, outcomes, table
from tests.engine.mutations.world_edits import WORLD_EDITS, World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    return outcomes(CODE_EDITS, tmp_path_factory.mktemp("mutations"))


def test_the_suite_is_as_large_as_it_claims() -> None:
    musts = [edit.must for edit in CODE_EDITS]
    assert musts.count("miss") >= 40
    assert musts.count("hit") >= 15


def test_edits_do_what_they_claim(found: list[Outcome]) -> None:
    """An edit that must miss changes what the task returns; one that must hit does not."""
    wrong = [o.edit.name for o in found if o.shows() != (o.edit.must == "miss" and o.edit.shows)]
    assert wrong == []


def test_no_false_hit_and_no_false_miss(found: list[Outcome]) -> None:
    """And Prefect's own policies, on the same edits, have both: they read the text of one function."""
    print(table(found))
    assert [o.edit.name for o in found if o.is_wrong("ours")] == []
    prefect = {policy: [o.edit.must for o in found if o.is_wrong(policy)] for policy in POLICIES}
    assert prefect[CLOSEST].count("miss") > 40
    assert all(prefect.values())
    assert len(prefect["DEFAULT"]) == sum(edit.must == "hit" for edit in CODE_EDITS), (
        "it never hits in another run"
    )


def test_the_reason_names_what_was_edited(found: list[Outcome]) -> None:
    """Every miss can be explained, in one line."""
    from ml_platform.engine.code import Code, explain

    for outcome in found:
        old, new = (Code.model_validate(o["code"]) for o in (outcome.before, outcome.after))
        reason = explain(old, new)
        assert bool(reason) == (outcome.edit.must == "miss"), outcome.edit.name
        assert "\n" not in reason


def test_keys_do_not_depend_on_process_or_place(
    tmp_path: Path, found: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, another order of its hashes, another folder."""
    monkeypatch.setenv("PYTHONHASHSEED", "12345")
    (again,) = keys([(write_project(tmp_path / "elsewhere" / "deep"), list(ARGUMENTS))])
    for outcome in found:
        assert again[outcome.edit.task]["ours"] == outcome.before["ours"]


@pytest.fixture
def world_outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    monkeypatch.setenv("ML_PLATFORM_PLACEMENTS", str(ROOT / "deployments" / "placements"))
    found = []
    for number, edit in enumerate(WORLD_EDITS):
        world = World.made(tmp_path / str(number))
        edit.first(world)
        with mock.patch.dict(os.environ, REGION="ch"), as_declared():
            before = world.keys()[edit.task]
            edit.apply(world)
            found.append(Outcome(edit, before, world.keys()[edit.task]))
    return found


def test_no_false_hit_and_no_false_miss_in_the_world_around_the_code(world_outcomes: list[Outcome]) -> None:
    """Files, variables, parameters, data sets, resources, placements; keys as the planner takes them."""
    print(table(world_outcomes))
    assert [outcome.edit.name for outcome in world_outcomes if outcome.is_wrong("ours")] == []
    prefect = [outcome.edit.must for outcome in world_outcomes if outcome.is_wrong(CLOSEST)]
    assert prefect.count("miss") > 5
    assert prefect.count("hit") > 0
