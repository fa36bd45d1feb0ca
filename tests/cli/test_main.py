"""`python -m ml_platform`: help, wrong words, failures without tracebacks."""

from __future__ import annotations

import pytest

from ml_platform.cli.main import main


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for command in ("doctor", "build-horovod", "up", "down"):
        assert command in said


@pytest.mark.parametrize(
    "words",
    [["docter"], ["doctor", "--jsn"], ["up", "--prefect-port", "99999"], ["up", "--mlflow-port", "x"]],
)
def test_wrong_words_end_with_2_and_a_hint(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert words[-1].lstrip("-") in said
    assert "--help" in said
    assert "Traceback" not in said


def test_a_platform_error_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    """Its own exit code, its own hint."""
    monkeypatch.setenv("ML_PLATFORM_HOME", "/dev/null/home")
    assert main(["down"]) == 5
    said = capsys.readouterr().err
    assert said.startswith("StoreError: the platform's folder /dev/null/home cannot be made")
    assert "try: " in said
    assert "Traceback" not in said
