"""Secrets of Prefect are asked for also where no server runs yet."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from ml_platform.cli.main import main
from ml_platform.engine import server as servers
from ml_platform.engine.secret_blocks import secret_in_block
from ml_platform.engine.server import asking, prefect_api

NAME, BLOCK = "ASKED_TOKEN", "asked-token"


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done with temporary servers; the one of the tests stands for them."""
    done: list[str] = []

    class Standing:
        def __init__(self) -> None:
            done.append("start")

        def url(self) -> str:
            return "http://127.0.0.1:9/api"

        def stop(self) -> None:
            done.append("stop")

        kill = stop

    monkeypatch.setattr(servers, "TemporaryServer", Standing)
    monkeypatch.setattr(servers, "configured_api", lambda: None)
    monkeypatch.setattr("ml_platform.engine.secret_blocks._read", lambda block: f"{block} {asked()}")
    return done


def asked() -> str | None:
    return PREFECT_API_URL.value()


def test_a_server_starts_once_when_somebody_asks_and_ends_with_the_block(temporary: list[str]) -> None:
    with asking(None):
        assert temporary == []
        assert secret_in_block(NAME) == secret_in_block(NAME) == f"{BLOCK} http://127.0.0.1:9/api"
        assert temporary == ["start"]
    assert temporary == ["start", "stop"]
    assert secret_in_block(NAME) is None


def test_who_names_a_server_starts_none(temporary: list[str]) -> None:
    with asking("http://127.0.0.1:8/api"), temporary_settings(updates={PREFECT_API_URL: asked()}):
        assert asked() == "http://127.0.0.1:8/api"
    assert temporary == []


def test_what_is_checked_while_a_run_waits_for_its_server_may_ask_it(temporary: list[str]) -> None:
    def meanwhile() -> None:
        assert secret_in_block(NAME) == f"{BLOCK} http://127.0.0.1:9/api"
        raise LookupError("enough")

    with pytest.raises(LookupError), prefect_api(None, meanwhile):
        pass
    assert temporary == ["start", "stop"]


def test_the_command_that_infers_asks_and_names_the_block(
    temporary: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    monkeypatch.setattr("ml_platform.engine.secret_blocks._read", lambda block: None)
    assert main(["contract", "infer", "http://127.0.0.1:9/t.csv?token=${ASKED_TOKEN}"]) == 2
    assert f"Prefect Secret block '{BLOCK}'" in "".join(capsys.readouterr())
    assert temporary == ["start", "stop"]
