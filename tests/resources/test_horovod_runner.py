"""HorovodRunner: the contract of the original."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ml_platform import HorovodRunner, current_rank, log_to_driver
from ml_platform.errors import SpecError, UsageError
from ml_platform.resources import progress
from ml_platform.resources.horovod import open_job
from ml_platform.resources.horovod_runner import run_main
from ml_platform.resources.log_echo import echoed
from ml_platform.specs.placements import HorovodPlacement
from ml_platform.specs.resources import HorovodSpec
from tests.worker import horovod_mains


@pytest.mark.parametrize("np", [0, True, 1.5, "2"])
def test_what_is_no_number_of_ranks_is_refused(np: object) -> None:
    with pytest.raises(SpecError, match="HorovodRunner needs a number of ranks") as caught:
        HorovodRunner(np=np)  # type: ignore[arg-type]
    assert "np=-2 for two ranks on this machine" in str(caught.value)


def test_an_unknown_verbosity_is_refused() -> None:
    with pytest.raises(SpecError, match="no driver_log_verbosity 'some'") as caught:
        HorovodRunner(np=-1, driver_log_verbosity="some")  # type: ignore[arg-type]
    assert caught.value.wanted == "all or log_callback_only"


def test_np_is_keyword_only() -> None:
    with pytest.raises(TypeError):
        HorovodRunner(-1)  # type: ignore[misc]


def test_outside_of_main_there_is_no_rank_and_no_driver() -> None:
    for call in (current_rank, lambda: log_to_driver("hello")):
        with pytest.raises(UsageError, match="no rank runs this code"):
            call()


def test_what_cannot_be_sent_is_named_like_the_function(tmp_path: Path) -> None:
    """The adapter does not show: the error speaks of `main` and its closure."""
    lock = threading.Lock()

    def train() -> None:
        lock.acquire()

    spec = HorovodSpec(ranks=1, backend="in_process")
    with open_job(spec, HorovodPlacement(), log_folder=tmp_path) as job:
        with pytest.raises(SpecError, match=r"\.train cannot be sent to ranks: closure variable 'lock'"):
            run_main(job, train, {}, log_folder=tmp_path)
        with pytest.raises(SpecError, match=r"\.train cannot be sent to ranks: argument 1"):
            run_main(job, train, {"lock": lock}, log_folder=tmp_path)


def test_files_are_echoed_line_by_line_from_where_they_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "rank-0.log", tmp_path / "rank-1.log"
    first.write_text("of an earlier job\n")
    with echoed([first, second]):
        with first.open("a") as file:
            file.write("half a line")
            file.flush()
            file.write(", and the rest\n")
        second.write_text("no end of line")
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "[0] half a line, and the rest",
        "[1] no end of line",
    ]


@pytest.mark.horovod
def test_one_local_rank_prints_everything_or_what_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """np=-1 is a process of its own; its value comes back; progress still reaches whoever listened."""
    heard: list[str] = []
    with progress.listening(lambda said: heard.append(said.message)):
        value = HorovodRunner(np=-1, driver_log_verbosity="all").run(horovod_mains.talkative, lines=2)
    said = capsys.readouterr().out.splitlines()
    assert value == "rank 0"
    assert "[0] printed by 0" in said
    assert [line for line in said if "line" in line] == ["[0] line 0 of 0", "[0] line 1 of 0"]
    assert [len(line) for line in said if line.startswith("[0] xxx")] == [4 + 4000]
    told = [line for line in said if line.startswith("[0] epoch")]
    assert [line.partition(":")[0] for line in told] == [
        f"[0] epoch {epoch}/2{batch}" for epoch in (1, 2) for batch in (", batch 1/2", ", batch 2/2", "")
    ]
    assert heard == []


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.horovod
def test_positive_np_are_tasks_of_one_spark_job(spark: object) -> None:
    """In the application that is live, which goes on afterwards; and gradients are reduced there too."""
    result = HorovodRunner(np=2).run(horovod_mains.tutorial, rate=0.05)
    assert (result["rank"], result["size"]) == (0, 2)
    assert len(set(result["everyone"])) == 1
    assert spark.range(3).count() == 3  # type: ignore[attr-defined]
