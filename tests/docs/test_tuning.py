"""The page about tuning does what it says: its search runs, and what it says can be written can be read."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ml_platform.engine import Dag
from ml_platform.specs.tuning import StudySpec
from ml_platform.tuning.spaces import parse

PAGE = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()


def test_what_can_be_written_can_be_read() -> None:
    table = PAGE.split("| written | means |")[1].split("\n\n")[0].replace(r"\|", "¦")
    written = [text.replace("¦", "|") for text in re.findall(r"`([^`]+)`(?=[,|\s].*\|)", table)]
    assert len(written) == 6
    assert all(parse("page", text) for text in written)


def test_every_option_of_a_study_is_on_the_page() -> None:
    assert all(f"`--study.{name}`" in PAGE for name in StudySpec.model_fields)


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_an_objective_of_your_own_is_searched_on_executors(server: str, tmp_path: Path) -> None:
    module = tmp_path / "tuning_page.py"
    module.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    search = runpy.run_path(str(module))["search"]
    assert isinstance(search, Dag)
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        assert 0.01 <= search(StudySpec(trials=3)) <= 1
