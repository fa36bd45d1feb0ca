"""A worker of Spark and a rank that are killed: their tasks are the same again, and nobody had to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.conftest import Project

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.spark, pytest.mark.horovod]


def test_what_was_lost_is_tried_again_and_gives_what_it_would_have_given(
    project: Project, tmp_path: Path
) -> None:
    ran = project.run("tests.scenarios.lost", "--folder", str(tmp_path), "--json")
    assert ran.code == 0, ran.err
    assert ran.json == [200, 200]
    tries = {file.name: len(file.read_text()) for file in tmp_path.iterdir()}
    assert tries == {"count_rows": 2, "worker": 2, "add_up": 2, "rank": 2}
    assert ran.err.count("tried again: ") == 2, ran.err
    assert project.leftovers() == []
