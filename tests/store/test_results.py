"""Stored results: what was put comes back; what was cut, edited, moved or is newer counts as absent."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import StoreError
from ml_platform.store.folders import local_path
from ml_platform.store.location import data_uri
from ml_platform.store.results import Absent, Result, Results

OWN, INPUTS, OTHER = "a" * 64, "b" * 64, "c" * 64


def result(own: str = OWN, inputs: str = INPUTS, output: Any = 1) -> Result:
    return Result(
        own=own,
        inputs=inputs,
        dag="d",
        node="n",
        task="tasks.n",
        run="brave-otter",
        output=output,
        identity="i",
        stamps={"file:///x": "file 1-2-3"},
        parts={"code": "c"},
        seconds=0.5,
        created="2026-01-01T00:00:00+00:00",
    )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results((tmp_path / "store" / ".results").as_uri())


def file_of(results: Results, own: str = OWN) -> Path:
    return local_path(results.uri) / own / f"{INPUTS}.json"


def reason(found: Result | Absent) -> str:
    assert isinstance(found, Absent)
    return found.reason


OUTPUTS = [None, 1, 2**70, -0.0, 1e-310, "ü\u2028\0", [], {}, {"b": 1, "a": [{"deep": None}]}, True]


@pytest.mark.parametrize("output", OUTPUTS)
def test_what_was_put_is_found(results: Results, output: Any) -> None:
    put = result(output=output)
    results.put(put)
    found = results.find(OWN, INPUTS)
    assert isinstance(found, Result)
    assert found.model_copy(update={"digest": ""}) == put
    assert json.dumps(found.output) == json.dumps(output)
    assert len(found.digest) == 64


def test_numbers_that_json_does_not_know_come_back(results: Results) -> None:
    results.put(result(output=[math.nan, math.inf, -math.inf]))
    found = results.find(OWN, INPUTS)
    assert isinstance(found, Result)
    assert math.isnan(found.output[0])
    assert found.output[1:] == [math.inf, -math.inf]


def test_results_lie_in_the_store_and_the_last_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_STORE", str(tmp_path / "s"))
    Results().put(result(output=1))
    Results().put(result(output=2))
    assert Results().uri == f"{data_uri()}/.results"
    found = Results().find(OWN, INPUTS)
    assert isinstance(found, Result)
    assert found.output == 2
    assert [path.name for path in (tmp_path / "s").rglob("*.json")] == [f"{INPUTS}.json"]


def test_other_keys_find_nothing(results: Results) -> None:
    assert not results.any(OWN)
    results.put(result())
    assert reason(results.find(OWN, OTHER)) == "result missing"
    assert reason(results.find(OTHER, INPUTS)) == "result missing"
    assert (results.any(OWN), results.any(OTHER)) == (True, False)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"output":1', '"output":2'))


def add_blanks(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def tear(path: Path) -> None:
    """What a power cut leaves of a file that was never synced: its length, and no content."""
    path.write_bytes(b"\0" * path.stat().st_size)


def replace(path: Path) -> None:
    path.write_text("[]")


@pytest.mark.parametrize("damage", [cut, cut_to_nothing, edit, add_blanks, tear, replace])
def test_a_damaged_result_counts_as_absent(results: Results, damage: Callable[[Path], None]) -> None:
    results.put(result())
    damage(file_of(results))
    assert reason(results.find(OWN, INPUTS)) == "result file damaged: its digest does not match its content"
    assert not list(results.walk())
    results.put(result())
    assert isinstance(results.find(OWN, INPUTS), Result)


def test_a_result_under_another_key_counts_as_absent(results: Results) -> None:
    results.put(result())
    file_of(results, OTHER).parent.mkdir()
    file_of(results).rename(file_of(results, OTHER))
    assert "another key" in reason(results.find(OTHER, INPUTS))


def test_a_deleted_result_is_missing(results: Results) -> None:
    results.put(result())
    file_of(results).unlink()
    assert reason(results.find(OWN, INPUTS)) == "result missing"
    assert not results.any(OWN)


def test_a_folder_in_a_results_place_is_a_reason_not_a_crash(results: Results) -> None:
    file_of(results).mkdir(parents=True)
    assert "cannot be read" in reason(results.find(OWN, INPUTS))


class Newer(Result):
    """What a later version of this package might write."""

    confidence: float = 0.5


@pytest.mark.parametrize(
    "newer",
    [
        Newer(**result().model_dump()),
        result().model_copy(update={"format": 2}),
    ],
    ids=["a field more", "another format"],
)
def test_a_result_of_a_newer_version_counts_as_absent(results: Results, newer: Result) -> None:
    """Both versions work on one store: neither crashes, neither takes what it does not understand."""
    results.put(newer)
    assert "another version of ml-platform" in reason(results.find(OWN, INPUTS))
    assert not list(results.walk())
    results.put(result())
    assert isinstance(results.find(OWN, INPUTS), Result)


def test_what_is_no_json_is_refused(results: Results) -> None:
    with pytest.raises(StoreError, match="the output of 'n' is no JSON"):
        results.put(result(output=object()))
    assert not results.any(OWN)


def test_a_writer_killed_in_the_middle_leaves_nothing_readable(results: Results) -> None:
    """The process ends between the content and the rename."""
    program = (
        "import os, sys; from tests.store.test_results import result, Results\n"
        "os.rename = lambda *names: os._exit(9)\n"
        "Results(sys.argv[1]).put(result())"
    )
    ended = subprocess.run([sys.executable, "-c", program, results.uri], check=False, cwd=Path.cwd())
    assert ended.returncode == 9
    assert [path.name.startswith(".building-") for path in local_path(results.uri).iterdir()] == [True]
    assert reason(results.find(OWN, INPUTS)) == "result missing"
    assert not results.any(OWN)
    assert not list(results.walk())


def test_a_full_disk_in_the_middle_leaves_nothing(results: Results) -> None:
    """No file of the process may grow beyond 4 KiB, so that the write stops part way."""
    program = (
        "import resource, signal, sys; from tests.store.test_results import result, Results\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from ml_platform.errors import StoreError\n"
        "results = Results(sys.argv[1])\n"
        "results.put(result(output='small'))\n"
        "try: results.put(result(output='x' * 9000))\n"
        "except StoreError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, results.uri], check=True, capture_output=True, text=True
    )
    assert "a result cannot be written" in ended.stdout
    assert "File too large" in ended.stdout
    assert [path.name for path in local_path(results.uri).rglob("*.json")] == [f"{INPUTS}.json"]
    found = results.find(OWN, INPUTS)
    assert isinstance(found, Result)
    assert found.output == "small"


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    results = Results((tmp_path / "file").as_uri())
    with pytest.raises(StoreError, match=r"cannot be written to file://(.|\n)*ML_PLATFORM_STORE"):
        results.put(result())
    assert reason(results.find(OWN, INPUTS)) == "result missing"


def test_many_writers_of_one_result_leave_a_whole_one(results: Results) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            results.put(result(output="x" * 10_000 * number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = results.find(OWN, INPUTS)
        assert isinstance(found, Result) or found.reason == "result missing"
    assert len(list(local_path(results.uri).rglob("*.json"))) == 1
    assert len(list(results.walk())) == 1


def test_a_clock_that_jumps_back_changes_nothing(results: Results) -> None:
    results.put(result())
    os.utime(file_of(results), (1, 1))
    assert isinstance(results.find(OWN, INPUTS), Result)


def test_code_is_kept_once_and_checked(results: Results) -> None:
    content = {"functions": {"b": "def b(): ...", "a": "ü"}}
    digest = results.put_code(content)
    path = local_path(results.uri) / "code" / f"{digest}.json"
    before = path.stat().st_mtime_ns, path.stat().st_ino
    assert results.put_code(dict(reversed(content.items()))) == digest
    assert Results(results.uri).put_code(content) == digest
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert results.get_code(digest) == content
    assert not list(results.walk())
    path.write_text(path.read_text().replace("def", "DEF"))
    assert results.get_code(digest) is None
    assert results.get_code(OTHER) is None
    assert Results(results.uri).put_code(content) == digest
    assert results.get_code(digest) == content


def test_walk_gives_every_result_once(results: Results) -> None:
    keys = {(own, inputs) for own in (OWN, OTHER) for inputs in (OWN, INPUTS)}
    for own, inputs in keys:
        results.put(result(own, inputs))
    assert {(found.own, found.inputs) for found in results.walk()} == keys
