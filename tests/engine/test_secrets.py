"""A canary: secrets reach the task, and nothing that is kept or shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.runtime import flow_run
from pydantic import SecretStr

from ml_platform.engine import EngineSpec, dag, task
from ml_platform.engine.resume import resumed_parameters
from ml_platform.errors import SpecError
from ml_platform.store.location import home
from ml_platform.store.records import read_run

pytestmark = pytest.mark.slow

CANARY = "canary-5f0c2a91d7"


@task(environment=["CANARY_VARIABLE"])
def log_in(password: SecretStr) -> str:
    assert password.get_secret_value() == CANARY
    return str(flow_run.name)


@dag
def secretive(password: SecretStr) -> str:
    return log_in(password)


def test_a_secret_is_in_no_key_plan_record_or_page(
    prefect_api: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CANARY_VARIABLE", CANARY)
    secret = SecretStr(CANARY)
    plan = secretive.plan(password=secret)
    run = secretive(password=secret)

    shown = [plan.model_dump_json(), plan.markdown(), repr(plan), str(read_run(run)), caplog.text]
    assert not [text for text in shown if CANARY in text]
    kept = [path for path in home().rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert not [path for path in kept if CANARY.encode() in path.read_bytes()]
    with get_client(sync_client=True) as client:
        (told,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
        artifacts = client.read_artifacts()
    assert CANARY not in told.model_dump_json()
    assert not [artifact for artifact in artifacts if CANARY in str(artifact.data)]


def test_a_run_with_a_secret_is_not_resumed_without_it(prefect_api: str) -> None:
    """Its record holds stars: a task must never get them for a password."""
    run = secretive(password=SecretStr(CANARY))
    with pytest.raises(SpecError, match="secrets, which no record keeps") as caught:
        resumed_parameters(secretive, EngineSpec(mode="resume", run=run))
    assert "parameter password" in str(caught.value)


def test_an_argument_that_does_not_fit_does_not_tell_the_secret() -> None:
    @task
    def wants_a_number(n: int) -> int:
        return n

    @dag
    def wrong(password: SecretStr) -> int:
        return wants_a_number(password)  # type: ignore[arg-type]

    with pytest.raises(Exception, match="wanted int") as caught:
        wrong.graph(password=SecretStr(CANARY))
    assert CANARY not in str(caught.value)


def test_the_folder_of_the_platform_is_private(tmp_path: Path) -> None:
    assert home().stat().st_mode & 0o077 == 0
