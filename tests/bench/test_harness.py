"""The harness of `make bench`: its statistics, its rows and its graphs. Nothing is timed here."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.environments import OWN, PEERS, version
from bench.machine import foreign_cpu_seconds
from bench.memory import watched
from bench.pairing import Block, Interval, clean, difference, growth, growth_exponent, interval, ratio
from bench.peers import exchange
from bench.report import Row, merged, read_rows, row, table
from bench.sides import rounds

NAMES = sorted(path.parent.name for path in PEERS.glob("*/driver.py"))
PINNED = [name for name in NAMES if name not in OWN]
HELD = 64 << 20
"""Bytes."""
WANTED = {"bench", "peer", "size", "ratio", "low", "high", "target", "met"}


def pairs(*seconds: tuple[float, float], foreign: Sequence[float] = ()) -> list[tuple[Block, Block]]:
    loads = foreign or [0.0] * len(seconds)
    return [(Block(ours, load), Block(theirs)) for (ours, theirs), load in zip(seconds, loads, strict=True)]


def test_a_ratio_is_the_median_of_the_pairs() -> None:
    """One pair that went wrong does not move it."""
    found = ratio(pairs((1.0, 2.0), (1.1, 2.0), (90.0, 2.0), (0.9, 2.0), (1.0, 2.0)))
    assert found.value == 0.5
    assert found.low <= 0.5 <= found.high


def test_a_ratio_pairs_what_ran_side_by_side() -> None:
    """Both sides slow at the same time is no difference."""
    assert ratio(pairs((1, 2), (10, 20), (5, 10))) == Interval(0.5, 0.5, 0.5)


def test_an_interval_is_the_same_each_time_and_wider_for_noise() -> None:
    calm, noisy = [1.0, 1.01, 0.99, 1.0, 1.0], [1.0, 3.0, 0.2, 1.0, 2.0]
    assert interval(noisy) == interval(noisy)
    width = [found.high - found.low for found in (interval(calm), interval(noisy))]
    assert width[0] < width[1]


def test_a_difference_is_in_seconds() -> None:
    assert difference(pairs((3.0, 1.0), (2.5, 0.5), (4.0, 2.0))).value == 2.0


def test_disturbed_pairs_are_discarded() -> None:
    found = clean(pairs((1, 1), (9, 1), (1, 1), (1, 1), foreign=[0.0, 0.5, 0.04, 0.01]), limit=0.05)
    assert (len(found.kept), found.discarded, found.disturbed) == (3, 1, False)
    assert all(ours.seconds == 1 for ours, _ in found.kept)


def test_load_of_others_is_seen() -> None:
    """What a killed process had used is gone with it, and may hide the load of one look; not of five."""
    seen = []
    for _ in range(5):
        before = foreign_cpu_seconds()
        with _beside_this_process("import time\nwhile time.process_time() < 0.3: pass"):
            seen.append(foreign_cpu_seconds() - before)
        if seen[-1] >= 0.2:
            return
    pytest.fail(f"no look saw 0.2 s: {seen}")


@contextmanager
def _beside_this_process(code: str) -> Iterator[None]:
    """A process that is nobody's below this one: its parent has ended. It has used its time, and waits."""
    reading, writing = os.pipe()
    alive, end = os.pipe()
    script = f"{code}\nimport os; os.write({writing}, b'.'); os.read({alive}, 1)"
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {script!r}], close_fds=False)"
    try:
        subprocess.run([sys.executable, "-c", start], check=True, pass_fds=[writing, alive])
        os.read(reading, 1)
        yield
    finally:
        for handle in (reading, writing, alive, end):
            os.close(handle)


def test_without_enough_clean_pairs_the_least_disturbed_stand_in_and_say_so() -> None:
    found = clean(pairs((1, 1), (2, 1), (3, 1), (4, 1), foreign=[0.9, 0.3, 0.2, 0.1]), limit=0.05)
    assert found.disturbed
    assert [ours.seconds for ours, _ in found.kept] == [4, 3, 2]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.1, 2.0])
def test_the_growth_exponent_sees_through_a_fixed_cost(exponent: float) -> None:
    sizes = (500, 1000, 2000, 4000)
    assert growth_exponent(sizes, [0.3 + 1e-4 * n**exponent for n in sizes]) == pytest.approx(
        exponent, abs=0.05
    )


def test_time_until_it_returned_leaves_out_what_is_sent_later() -> None:
    called, seconds, _, result = exchange.delivered(lambda: 7, lambda: time.sleep(0.01))
    block = Block(seconds, called=called)
    assert result == 7
    assert block.until_it_returned().seconds == called < seconds


@pytest.mark.slow
def test_growth_looks_at_the_least_disturbed_repetition() -> None:
    sizes = (500, 1000, 2000, 4000)
    found = growth(sizes, [[n * 1e-4, n * 1e-4, n * 1e-4 + at] for at, n in enumerate(sizes)])
    assert found.value == pytest.approx(1.0, abs=0.05)


def measured(**changes: object) -> Row:
    more: dict[str, object] = {"target": 1.15, "pairs": 7, "discarded": 1, "date": "2026-01-01", **changes}
    return row("B1", "chain", "prefect", "full", Interval(1.1, 1.0, 1.2), **more)


def test_a_line_is_json_with_the_fields_that_were_promised() -> None:
    line = measured().line()
    content = json.loads(line)
    assert "\n" not in line
    assert content.keys() >= WANTED
    assert (content["bench"], content["ratio"], content["met"]) == ("B1", 1.1, True)


@pytest.mark.parametrize(("target", "met"), [(1.3, True), (1.1, True), (0.9, False), (None, None)])
def test_a_target_is_missed_only_by_the_whole_interval(target: float | None, met: bool | None) -> None:
    assert measured(target=target).met is met


def test_rows_are_kept_and_replaced_by_newer_ones(tmp_path: Path) -> None:
    old, new = measured(pairs=3), measured(pairs=9)
    other = row("B2", "unchanged", "prefect", "full", Interval(0.1, 0.1, 0.1))
    file = tmp_path / "results.jsonl"
    file.write_text(f"{old.line()}\n{other.line()}\n")
    assert read_rows(file) == [old, other]
    assert merged(read_rows(file), [new]) == [new, other]


def test_the_table_shows_machine_versions_and_every_row() -> None:
    text = table([measured(), measured(target=0.5, disturbed=True)], {"processor": "2 × something"})
    assert "- processor: 2 × something" in text
    body = [line for line in text.splitlines() if line.startswith("| B1")]
    assert len(body) == 2
    assert "| 1.1× [1, 1.2] | ≤ 1.15× | within its interval |" in body[0]
    assert "**no**" in body[1]
    assert "disturbed" in body[1]
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_rounds_alternate_the_order() -> None:
    """Whoever always comes second would pay for what the first leaves behind."""
    order: list[str] = []

    def side(name: str) -> Block:
        order.append(name)
        return Block(1.0)

    found = rounds({name: lambda name=name: side(name) for name in "abc"}, 3)  # type: ignore[misc]
    assert "".join(order) == "abccbaabc"
    assert [len(blocks) for blocks in found.values()] == [3, 3, 3]


@pytest.mark.parametrize("shape", ["chain", "fan", "layers", "chains"])
def test_graphs_are_complete_and_in_order(shape: str) -> None:
    parents = exchange.graph(shape, 200 if shape != "chains" else 201)
    assert len(parents) == (201 if shape == "chains" else 200)
    assert all(parent < at for at, needed in enumerate(parents) for parent in needed)


def test_what_the_graphs_compute() -> None:
    assert exchange.walk(exchange.graph("chain", 50)) == [50]
    assert exchange.walk(exchange.graph("fan", 50)) == [96]
    assert exchange.walk(exchange.graph("layers", 50)) == [10] * 5


@pytest.mark.parametrize("name", PINNED)
def test_peers_are_pinned_with_hashes_and_without_addresses(name: str) -> None:
    text = (PEERS / name / "requirements.txt").read_text()
    entries = [
        line for line in text.replace("\\\n", " ").splitlines() if line.strip() and line.strip()[0] != "#"
    ]
    assert all(re.match(r"[\w.\-\[\]]+==\S+.*--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert "index-url" not in text
    assert version(name) in text


@pytest.mark.parametrize("name", NAMES)
def test_drivers_are_short_and_import_nothing_of_ours(name: str) -> None:
    """A peer cannot be slowed by our code."""
    text = (PEERS / name / "driver.py").read_text()
    assert len(text.splitlines()) < 80
    assert name.startswith("ours") or "ml_platform" not in text


def test_the_exchange_needs_the_standard_library_alone() -> None:
    imported = re.findall(r"^(?:from|import) (\w+)", (PEERS / "exchange.py").read_text(), re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names


def test_a_side_that_holds_too_much_is_ended() -> None:
    with _holding(f"b'x' * {HELD}") as greedy, watched(greedy.pid, most=HELD // 2) as held:
        _begin(greedy)
        assert greedy.wait(timeout=60) == -signal.SIGKILL
    assert held.killed
    assert held.anonymous > HELD // 2 > held.at_first


def test_pages_of_a_file_do_not_end_a_side(tmp_path: Path) -> None:
    """They are given back when memory lacks."""
    file = tmp_path / "pages"
    file.write_bytes(bytes(HELD))
    pages = f"mmap.mmap(os.open({str(file)!r}, os.O_RDONLY), 0, access=mmap.ACCESS_READ)"
    with _holding(f"(mapped := {pages}, sum(mapped[::4096]))") as modest:
        with watched(modest.pid, most=HELD // 2) as held:
            _begin(modest)
            assert modest.stdout is not None
            assert modest.stdout.readline() == b"held\n"
        modest.communicate()
    assert modest.returncode == 0
    assert not held.killed
    assert held.flow > HELD
    assert held.anonymous < HELD // 2


@contextmanager
def _holding(what: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that makes `what` when it gets a line, says so, and holds it until its stdin ends."""
    code = f"import mmap, os, sys; input(); it = {what}; print('held', flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process


def _begin(process: subprocess.Popen[bytes]) -> None:
    """Send it its line, and leave its stdin open: it holds what it made until that ends."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
