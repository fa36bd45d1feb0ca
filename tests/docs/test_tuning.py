"""The page about tuning does what it says: its search runs, and what it says can be written can be read."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from ml_platform.engine import Dag
from ml_platform.specs.images import BackboneSpec
from ml_platform.specs.training import FineTuneSpec, KerasSpec, XGBoostSpec
from ml_platform.specs.tuning import StudySpec
from ml_platform.tuning.spaces import parse
from tests.images.pictures import encoded, gradient

PAGE = (Path(__file__).parents[2] / "docs" / "tuning.md").read_text()


def test_what_can_be_written_can_be_read() -> None:
    table = PAGE.split("| written | means |")[1].split("\n\n")[0].replace(r"\|", "¦")
    written = [text.replace("¦", "|") for text in re.findall(r"`([^`]+)`(?=[,|\s].*\|)", table)]
    assert len(written) == 6
    assert all(parse("page", text) for text in written)


def test_every_option_of_a_study_is_on_the_page() -> None:
    assert all(f"`--study.{name}`" in PAGE for name in StudySpec.model_fields)


FEATURES = ("keras", "xgboost", "sklearn", "mllib")
"""Families that learn from features."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    module = tmp_path_factory.mktemp("page") / "tuning_page.py"
    module.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)))
    return runpy.run_path(str(module))


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_an_objective_of_your_own_is_searched_on_executors(page: dict[str, Any], server: str) -> None:
    search = page["search"]
    assert isinstance(search, Dag)
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        assert 0.01 <= search(StudySpec(trials=3)) <= 1


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.horovod
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("spark")
def test_every_family_is_searched_on_images(
    page: dict[str, Any], server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Light images and dark ones: any point tells them apart better than a guess."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    for at in range(120):
        path = tmp_path / "shades" / ("dark", "light")[at % 2] / f"{at:03}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(encoded(gradient(12, 9, seed=at) // 2 + (at % 2) * 127))
    page["BASES"] |= {"keras": KerasSpec(ranks=1, epochs=6), "xgboost": XGBoostSpec(trees=4)}
    study, source = StudySpec(trials=2, pruner="none"), str(tmp_path / "shades")
    with temporary_settings(updates={PREFECT_API_URL: server, PREFECT_LOGGING_TO_API_ENABLED: False}):
        trials = page["search_heads"](source, BackboneSpec(size=(4, 4)), families=FEATURES, study=study)
        trials += page["search_networks"](
            source, BackboneSpec(size=(8, 8)), FineTuneSpec(ranks=1, epochs=6, filters=(4,)), study
        )
    assert [trial.family for trial in trials] == [
        family for family in (*FEATURES, "fine_tuned") for _ in range(2)
    ]
    assert {trial.state for trial in trials} == {"complete"}
    assert all(trial.value is not None and trial.value < math.log(2) for trial in trials)
