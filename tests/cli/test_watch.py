"""What a person sees: lines in a pipe, a table in a terminal."""

from __future__ import annotations

import io
import os
from contextlib import suppress

from rich.console import Console

from ml_platform.cli.watch import LiveTable, PlainLines, shown
from ml_platform.engine.events import TaskEvent


def event(state: str, **more: object) -> TaskEvent:
    return TaskEvent.model_validate({"run": "brave-otter", "node": "train", "state": state, **more})


def test_a_pipe_gets_one_line_per_change_and_few_of_numbers_that_move() -> None:
    out = io.StringIO()
    watch = PlainLines(out)
    for seen in (
        event("waiting"),
        event("running"),
        event("running", message="epoch 1/9", seconds=1),
        event("running", message="epoch 2/9", seconds=2),
        event("running", message="tried again: rank 1 was killed", seconds=2),
        event("running", message="epoch 1/9", seconds=2),
        event("running", message="epoch 2/9", seconds=2),
        event("done", seconds=12.34),
    ):
        watch(seen)
    lines = out.getvalue().splitlines()
    assert [line.split()[1:3] for line in lines] == [*[["train", "running"]] * 4, ["train", "done"]]
    assert [line.rpartition(" s  ")[2] for line in lines[1:4]] == [
        "epoch 1/9",
        "tried again: rank 1 was killed",
        "epoch 1/9",
    ]
    assert lines[-1].endswith("12.3 s")


def test_a_reader_that_leaves_does_not_stop_the_run() -> None:
    """`… 2>&1 | head`"""
    reading, writing = os.pipe()
    os.close(reading)
    out = os.fdopen(writing, "w", buffering=1)
    watch = PlainLines(out)
    for _ in range(2):
        watch(event("done"))
    with suppress(BrokenPipeError):
        out.close()


def test_a_failure_says_what_failed() -> None:
    out = io.StringIO()
    PlainLines(out)(event("failed", seconds=1, message="table.csv is empty"))
    assert "table.csv is empty" in out.getvalue()


def test_a_terminal_gets_a_table_with_progress() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with shown(console) as watch:
        assert isinstance(watch, LiveTable)
        watch(event("running", message="epoch 3/9", done=3, total=9))
        drawn = io.StringIO()
        Console(file=drawn, width=100).print(watch)
    text = drawn.getvalue()
    assert "run brave-otter" in text
    assert "train" in text
    assert "epoch 3/9" in text
    assert "━" in text


def test_a_pipe_is_not_a_terminal() -> None:
    with shown(Console(file=io.StringIO())) as watch:
        assert isinstance(watch, PlainLines)
