"""Run records: a line that was cut spoils no other, a name belongs to one run, damage is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import StoreError
from ml_platform.store.location import runs_folder
from ml_platform.store.records import RunRecord, read_run, record_name


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def began(run: str = "brave-otter", **facts: Any) -> RunRecord:
    record = RunRecord(runs_folder(run))
    record.begin(run=run, dag="d", **facts)
    return record


def nodes_of(run: str = "brave-otter") -> list[str]:
    return [node["node"] for node in read_run(run)["nodes"]]


def test_what_was_said_of_each_node_is_there_during_and_after_the_run() -> None:
    record = began()
    record.node("a", output=1)
    record.node("b", output=float("inf"))
    assert nodes_of() == ["a", "b"]
    record.node("a", output=2)
    record.finish(run="brave-otter", dag="d")
    assert {node["node"]: node["output"] for node in read_run("brave-otter")["nodes"]}["a"] == 2


def test_a_line_that_was_cut_spoils_no_other() -> None:
    """A run that Prefect starts again goes on in the file of the killed attempt."""
    record = began()
    record.node("a")
    record.node("b")
    record.finish()
    lines = runs_folder("brave-otter") / "nodes.jsonl"
    lines.write_bytes(lines.read_bytes()[:-3])
    again = began()
    again.node("c")
    again.finish()
    assert nodes_of() == ["a", "c"]


KILLED = """
import os, signal
from ml_platform.store.location import runs_folder
from ml_platform.store.records import RunRecord
record = RunRecord(runs_folder("killed"))
record.begin(run="killed", dag="d")
record.node("a")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_told_from_one_under_way() -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    began()
    assert read_run("brave-otter")["state"] == "running"
    assert read_run("killed")["state"] == "killed"
    assert nodes_of("killed") == ["a"]


FULL = """
import resource, signal
from ml_platform.errors import StoreError
from ml_platform.store.location import runs_folder
from ml_platform.store.records import RunRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = RunRecord(runs_folder("full"))
record.begin(run="full", dag="d")
record.node("a")
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try: record.node("b", output="x" * 8192)
except StoreError as error: print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record.node("c")
"""


def test_a_full_disk_in_the_middle_of_a_line_is_an_error_and_spoils_no_other() -> None:
    """The first write of the line is only cut short: the system says so by its length alone."""
    ended = subprocess.run([sys.executable, "-c", FULL], check=True, capture_output=True, text=True)
    assert "cannot write the run record" in ended.stdout
    assert nodes_of("full") == ["a", "c"]


@pytest.mark.parametrize(
    ("name", "kept_as"),
    [
        ("brave-otter", "brave-otter-abcdef"),
        ("calm-bear", "calm-bear"),
        ("nightly/2026-11-27", "nightly-2026-11-27"),
        ("..", "run"),
        ("", "run"),
    ],
)
def test_a_name_belongs_to_one_flow_run(name: str, kept_as: str) -> None:
    """Prefect draws names at random, and people choose them."""
    began(flow_run_id="1111").finish(run="brave-otter", dag="d", flow_run_id="1111")
    assert record_name(name, "0000abcdef") == kept_as
    assert record_name("brave-otter", "1111") == "brave-otter", "an attempt more of the same run"


def test_a_record_that_cannot_be_read_keeps_its_name() -> None:
    began()
    (runs_folder("brave-otter") / "run.json").write_text("{")
    assert record_name("brave-otter", "0000abcdef") == "brave-otter-abcdef"


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": None},
        {"nodes": 3},
        {"nodes": ["x"]},
        {"nodes": [{}]},
        {"nodes": [{"node": 3}]},
        {"parameters": [1]},
        {"dag": None},
    ],
)
def test_a_record_of_another_shape_is_damaged(wrong: dict[str, Any]) -> None:
    began().finish(run="brave-otter", dag="d")
    path = runs_folder("brave-otter") / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **wrong}))
    with pytest.raises(StoreError, match="the record of run 'brave-otter' cannot be read"):
        read_run("brave-otter")


def test_the_record_of_another_run_is_taken_for_none() -> None:
    """Copied over this one, its parameters and outputs would be taken for those of this run."""
    began().finish(run="brave-otter", dag="d", parameters={"n": 1})
    began("calm-fox").finish(run="calm-fox", dag="d", parameters={"n": 2})
    (runs_folder("brave-otter") / "run.json").write_bytes((runs_folder("calm-fox") / "run.json").read_bytes())
    with pytest.raises(StoreError, match=r"brave-otter' cannot be read\n.*the record of 'calm-fox'"):
        read_run("brave-otter")
    assert read_run("calm-fox")["parameters"] == {"n": 2}
