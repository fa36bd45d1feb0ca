"""The picture of a graph says what became of each task, and what leads to what."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from ml_platform.engine import dag
from ml_platform.engine.picture import COLOURS, to_svg
from tests.engine.small import add, number, parity

pytestmark = pytest.mark.slow
SVG = "{http://www.w3.org/2000/svg}"


@dag
def drawn(n: int = 1) -> int:
    first = number(n).value
    return add(parity(add(first, 1)), first)


STATES = {"number": "cached", "add": "done", "parity": "failed", "add-2": "skipped"}


def test_each_box_names_its_task_and_its_state() -> None:
    graph = drawn.graph()
    assert {node.name for node in graph.nodes} == STATES.keys()
    root = ET.fromstring(to_svg(graph, STATES))
    names, below = [], []
    for place, text in enumerate(root.iter(f"{SVG}text")):
        (below if place % 2 else names).append(text.text)
    assert dict(zip(names, below, strict=True)) == STATES
    boxes = [rect.get("fill") for rect in root.iter(f"{SVG}rect")][1:]
    assert dict(zip(names, boxes, strict=True)) == {name: COLOURS[state] for name, state in STATES.items()}
    assert len(set(boxes)) == len(boxes)


def test_the_edges_that_no_longer_way_says() -> None:
    """number → add → parity → add-2: the one from number to add-2 says nothing more."""
    root = ET.fromstring(to_svg(drawn.graph(), {}))
    assert len(list(root.iter(f"{SVG}path"))) == 3


def test_a_state_is_no_markup() -> None:
    graph = drawn.graph()
    assert ET.fromstring(to_svg(graph, {"number": "<failed> & so on"})) is not None
