"""Where MLflow is; that no secret of its address is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from ml_platform.tracking.uris import credentials, database_file, redact, tracking_uri, ui_command


def test_without_a_setting_a_file_in_the_platforms_folder_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert database_file(tracking_uri()) == tmp_path / "mlflow.db"


@pytest.mark.parametrize(
    "uri", ["databricks", "http://mlflow:5000", "postgresql://a:b@db/mlflow", "sqlite:///x.db"]
)
def test_a_setting_passes_through(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert tracking_uri() == uri


def test_a_servers_credentials_leave_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ada:p%40ss@mlflow:5000/root")
    assert tracking_uri() == "https://mlflow:5000/root"
    assert credentials() == ("ada", "p@ss")


@pytest.mark.parametrize(
    "text",
    [
        "http://ada:canary@host:5000/api",
        "postgresql+psycopg://ada:ca@nary@db/mlflow?x=1",
        "HTTPConnectionPool: https://canary@host said no",
        "Authorization failed for canary-token",
    ],
)
def test_secrets_are_redacted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "canary-token")
    assert "canary" not in redact(text).replace("ca@nary", "canary")
    assert "***" in redact(text)


def test_text_without_secrets_stays_as_it_is() -> None:
    text = "see https://mlflow:5000/#/experiments/1 and mail ada@example.org"
    assert redact(text) == text


def test_the_command_that_opens_a_database_can_be_typed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "my home"))
    monkeypatch.chdir(tmp_path)
    assert ui_command().endswith("mlflow ui --backend-store-uri 'sqlite:///my home/mlflow.db'")
