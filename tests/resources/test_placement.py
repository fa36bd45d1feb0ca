"""Placements: values from a file, over the built-in local one."""

from pathlib import Path

import pytest

from ml_platform.errors import SpecError
from ml_platform.resources.placement import load_placement
from ml_platform.specs.placements import Placement


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_PLACEMENTS", str(tmp_path))
    monkeypatch.delenv("ML_PLATFORM_PLACEMENT", raising=False)
    return tmp_path


def test_local_needs_no_file(folder: Path) -> None:
    assert load_placement() == Placement()


def test_a_file_says_only_what_differs(folder: Path) -> None:
    (folder / "big.yaml").write_text("spark: {master: 'spark://host:7077'}\n")
    big = load_placement("big")
    assert big.name == "big"
    assert big.spark.master == "spark://host:7077"
    assert big.horovod == Placement().horovod


def test_the_environment_names_the_placement(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "big.yaml").write_text("budget: {cores: 7}\n")
    monkeypatch.setenv("ML_PLATFORM_PLACEMENT", "big")
    assert load_placement().budget.cores == 7


def test_an_unknown_name_gets_the_nearest_one(folder: Path) -> None:
    (folder / "cluster.yaml").write_text("")
    with pytest.raises(SpecError, match="did you mean 'cluster'"):
        load_placement("clutser")


@pytest.mark.parametrize(
    "text", ["sprak: {}", "spark: [", "- a", "budget: {cores: 0}", "x: !!python/object:os.system {}"]
)
def test_a_file_that_says_something_else_is_refused(folder: Path, text: str) -> None:
    """Misspelt keys, broken YAML, values out of range and YAML that would build objects."""
    (folder / "bad.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"bad.yaml cannot be used"):
        load_placement("bad")


def test_the_placements_that_ship_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML_PLATFORM_PLACEMENTS", raising=False)
    shipped = Path(__file__).parents[2] / "deployments" / "placements"
    monkeypatch.setenv("ML_PLATFORM_PLACEMENTS", str(shipped))
    for path in shipped.glob("*.yaml"):
        assert load_placement(path.stem).name == path.stem
