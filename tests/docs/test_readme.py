"""The README does what it says: its Python runs as written, and what it links to is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from ml_platform.engine import Dag

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """All Python of the README, in its order, as one module (not the scoring snippet)."""
    found = [text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "mlflow" not in text]
    module = tmp_path_factory.mktemp("readme") / "readme.py"
    module.write_text("\n".join(found))
    return runpy.run_path(str(module), run_name="readme")


def test_the_dag_of_the_readme_declares_its_graph(blocks: dict[str, object]) -> None:
    nightly = blocks["nightly"]
    assert isinstance(nightly, Dag)
    assert nightly.graph().edges == (("load_table", "count_rows", "table"),)


def test_branches_maps_and_dags_in_dags_of_the_readme(blocks: dict[str, object]) -> None:
    weekly = blocks["weekly"]
    assert isinstance(weekly, Dag)
    assert [node.name for node in weekly.graph().nodes] == [
        "load_table",
        "load_table-2",
        "count_rows",
        "enough",
        "nightly.load_table",
        "nightly.count_rows",
        "count_rows-2",
    ]


def test_every_picture_and_page_is_there() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target
