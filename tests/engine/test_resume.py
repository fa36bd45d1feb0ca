"""Resume: what is valid is reused, what is doubtful is named and refused, what is damaged is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_platform.engine import Dag, EngineSpec, dag, map_over, task
from ml_platform.engine.going_on import runs_so_far
from ml_platform.errors import PlatformError, SpecError, StoreError, UsageError
from ml_platform.specs.base import Spec
from ml_platform.store.location import data_uri, runs_folder
from tests.engine.runs import Runner
from tests.engine.small import add, count_to, length, number, total, write

pytestmark = pytest.mark.slow


class Rates(Spec):
    left: int = 1
    right: int = 1


@task
def needs_file(path: str, n: int) -> int:
    return n + len(Path(path).read_text())


@dag
def fails_first(path: str, n: int = 1, rates: Rates = Rates()) -> list[int]:
    """Two branches; one of them breaks until its file is there."""
    start = number(n).value
    return [add(needs_file(path, start), rates.left), add(start, rates.right)]


@task(cache=False)
def runs() -> list[str]:
    return list(runs_so_far())


@dag
def says_its_runs() -> list[str]:
    return runs()


def resume(run: str = "run-1", **more: Any) -> EngineSpec:
    return EngineSpec(mode="resume", run=run, **more)


def failure(ran: Any, kind: type[PlatformError]) -> str:
    assert isinstance(ran.error, kind)
    return str(ran.error)


def test_a_run_knows_its_name_and_those_that_it_goes_on_with(run: Runner) -> None:
    """However long the chain."""
    said = [run(says_its_runs, engine=engine).output for engine in (EngineSpec(), resume(), resume("run-2"))]
    assert said == [["run-1"], ["run-2", "run-1"], ["run-3", "run-2", "run-1"]]


# ── What is reused ───────────────────────────────────────────────────────────────────────────────


def test_what_had_completed_is_reused_and_the_rest_runs(run: Runner, tmp_path: Path) -> None:
    """With the parameters of that run; none need to be said again."""
    path = tmp_path / "file"
    failed = run(fails_first, path=str(path), n=5)
    assert isinstance(failed.error, FileNotFoundError)
    path.write_text("abc")
    ran = run(fails_first, path="", engine=resume())
    assert ran.output == [9, 6]
    assert ran.states["number"] == "cached"
    assert ran.executed >= {"needs_file", "add"}


def test_a_changed_parameter_runs_only_what_uses_it(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    run(fails_first, path=str(path))
    ran = run(fails_first, path="", engine=resume(overrides={"rates.right": 7}))
    assert ran.output == [5, 8]
    assert ran.executed == {"add-2"}
    again = run(fails_first, path="", engine=resume("run-2", overrides={"n": 2}))
    assert again.output == [6, 9], "the override of the resumed run stays"


def test_from_a_task_on_everything_runs_again(run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("abc")
    run(fails_first, path=str(path))
    ran = run(fails_first, path="", engine=resume(from_task="needs_file"))
    assert ran.states == {"number": "cached", "needs_file": "done", "add": "done", "add-2": "cached"}


def test_from_a_mapped_task_on_every_item_runs_again(run: Runner) -> None:
    @dag
    def maps(n: int = 2) -> int:
        return total(map_over(add, count_to(n)))

    run(maps)
    ran = run(maps, engine=resume(from_task="add"))
    assert ran.executed == {"add[0]", "add[1]", "total"}
    assert ran.states["count_to"] == "cached"


def test_from_a_task_that_several_nodes_run(run: Runner) -> None:
    @dag
    def inside(n: int) -> int:
        return add(number(n).value)

    @dag
    def around(n: int = 1) -> list[int]:
        return [inside(n), inside(2)]

    run(around)
    ran = run(around, engine=resume(from_task="add"))
    assert ran.executed == {"inside.add", "inside-2.add"}


# ── What is doubtful ─────────────────────────────────────────────────────────────────────────────


def work_of(version: int) -> Callable[[int], int]:
    """Two versions of one function."""
    if version == 1:

        def work(n: int) -> int:
            return n + 1

    else:

        def work(n: int) -> int:
            return n * 10

    return work


def versions(version: int) -> Dag[..., Any]:
    work = task(work_of(version))

    @dag(name="versions")
    def declared(n: int = 2) -> int:
        return add(work(number(n).value), 100)

    return declared


def mapped_versions(version: int) -> Dag[..., Any]:
    work = task(work_of(version))

    @dag(name="mapped versions")
    def declared(n: int = 2) -> int:
        return total(map_over(work, count_to(n)))

    return declared


def test_changed_code_before_the_task_to_begin_with_is_refused(run: Runner) -> None:
    """It would mix what two versions made. Nothing runs; the way out is named."""
    assert run(versions(1)).output == 103
    ran = run(versions(2), engine=resume(from_task="add"))
    text = failure(ran, UsageError)
    assert isinstance(ran.error, UsageError)
    assert ran.error.exit_code == 2
    assert "resuming run-1 from add would reuse what may be out of date" in text
    assert "work: function tests.engine.test_resume.work_of.<locals>.work changed" in text
    assert "--accept work" in text
    assert "number" not in text
    assert ran.events == []


def test_what_the_user_accepts_is_reused_as_it_is(run: Runner) -> None:
    run(versions(1))
    engine = resume(from_task="add", accept=("work",))
    plan = versions(2).plan(engine=engine)
    assert plan["work"].verdict == "cached"
    assert plan["work"].reason.startswith("accepted from run-1, although function")
    ran = run(versions(2), engine=engine)
    assert ran.output == 103
    assert ran.states == {"number": "cached", "work": "cached", "add": "done"}
    assert run(versions(2)).output == 120, "accepted once is not accepted for good"


def test_without_a_task_to_begin_with_what_is_doubtful_runs_again(run: Runner) -> None:
    run(versions(1))
    ran = run(versions(2), engine=resume())
    assert ran.output == 120
    assert ran.executed == {"work", "add"}
    assert ran.states["number"] == "cached"


def test_items_of_a_mapped_task_are_doubtful_and_accepted_together(run: Runner) -> None:
    assert run(mapped_versions(1)).output == 3
    text = failure(run(mapped_versions(2), engine=resume(from_task="total")), UsageError)
    assert "work[0]: function" in text
    assert "--accept work[0] work[1]" in text
    for accept in (("work",), ("work[0]", "work[1]")):
        ran = run(mapped_versions(2), engine=resume(from_task="total", accept=accept))
        assert ran.output == 3
        assert ran.executed == {"total"}


def test_a_changed_input_makes_it_doubtful_too(run: Runner) -> None:
    run(versions(1))
    engine = resume(from_task="add", overrides={"n": 3})
    text = failure(run(versions(1), engine=engine), UsageError)
    assert "number: parameter value: 2 → 3" in text
    assert "work: waits for number" in text


# ── What cannot be accepted ──────────────────────────────────────────────────────────────────────


def test_only_what_completed_then_can_be_accepted(run: Runner, tmp_path: Path) -> None:
    run(fails_first, path=str(tmp_path / "file"))
    text = failure(run(fails_first, path="", engine=resume(accept=("need_file",))), SpecError)
    assert "'need_file' did not complete in run run-1" in text
    text = failure(run(fails_first, path="", engine=resume(accept=("numbre",))), SpecError)
    assert "did you mean 'number'?" in text


def returning(kind: type) -> Dag[..., Any]:
    def make(n: int) -> Any:
        return n if kind is int else str(n)

    make.__annotations__["return"] = kind
    made = task(make)

    @dag(name="returning")
    def declared(n: int = 1) -> Any:
        return made(n)

    return declared


def test_an_output_of_another_type_cannot_be_accepted(run: Runner) -> None:
    run(returning(int))
    text = failure(run(returning(str), engine=resume(accept=("make",))), SpecError)
    assert "the output of make in run run-1 is not of its type any more" in text


def test_an_output_whose_file_is_gone_cannot_be_accepted(run: Runner, tmp_path: Path) -> None:
    @dag
    def files(folder: str) -> int:
        return length(write(folder, "abc"))

    run(files, folder=str(tmp_path))
    assert run(files, folder="", engine=resume(accept=("write",))).output == 3
    (tmp_path / "written").unlink()
    text = failure(run(files, folder="", engine=resume(accept=("write",))), SpecError)
    assert "the output of write in run run-1 is gone" in text
    assert (tmp_path / "written").as_uri() in text


# ── Records that do not serve ────────────────────────────────────────────────────────────────────


def test_an_unknown_run_names_the_nearest(run: Runner) -> None:
    run(versions(1))
    text = failure(run(versions(1), engine=resume("run-l")), SpecError)
    assert "there is no run 'run-l'" in text
    assert "did you mean 'run-1'?" in text


@pytest.mark.parametrize("name", ["../run-1", "", ".."])
def test_a_name_that_leaves_the_folder_is_refused(run: Runner, name: str) -> None:
    assert "cannot name a run" in failure(run(versions(1), engine=resume(name)), SpecError)


def test_a_run_of_another_dag_is_refused(run: Runner) -> None:
    run(mapped_versions(1))
    text = failure(run(versions(1), engine=resume()), SpecError)
    assert "run run-1 is not of versions" in text
    assert "a run of mapped versions" in text


def test_resume_without_a_run_is_refused(run: Runner) -> None:
    assert "engine.run names no run" in failure(run(versions(1), engine=EngineSpec(mode="resume")), SpecError)


@pytest.mark.parametrize("content", [b"", b'{"run": "run-1", "da', b"[]", b"null", b"\xff\xfe", b"3"])
def test_a_damaged_record_is_said_to_be_one(run: Runner, content: bytes) -> None:
    run(versions(1))
    (runs_folder("run-1") / "run.json").write_bytes(content)
    text = failure(run(versions(1), engine=resume()), StoreError)
    assert "the record of run 'run-1' cannot be read" in text


def test_a_deleted_record_is_an_unknown_run(run: Runner) -> None:
    run(versions(1))
    shutil.rmtree(runs_folder("run-1"))
    assert "there is no run 'run-1'" in failure(run(versions(1), engine=resume()), SpecError)


def killed(name: str, cut: int) -> None:
    """The record as it is when the process is killed: no nodes in run.json, the last line cut short."""
    folder = runs_folder(name)
    record = json.loads((folder / "run.json").read_text())
    del record["nodes"]
    (folder / "run.json").write_text(json.dumps({**record, "state": "running"}))
    lines = folder / "nodes.jsonl"
    lines.write_bytes(lines.read_bytes()[:-cut])


def test_a_killed_run_is_continued(run: Runner) -> None:
    """Whole lines count; the cut one did not end. Its result may be in the store all the same."""
    run(versions(1))
    killed("run-1", cut=30)
    ran = run(versions(1), engine=resume())
    assert ran.output == 103
    assert ran.executed == set()
    assert run(versions(2), engine=resume(accept=("work",))).output == 103
    text = failure(run(versions(1), engine=resume(accept=("add",))), SpecError)
    assert "'add' did not complete in run run-1" in text


def test_an_output_that_was_edited_in_the_record_is_not_accepted(run: Runner) -> None:
    """It is what the person believes that the run gave. Left out, the node runs again."""
    run(versions(1))
    path = runs_folder("run-1") / "run.json"
    record = json.loads(path.read_text())
    work = next(node for node in record["nodes"] if node["node"] == "work")
    assert work["output"] == 3
    work["output"] = 4
    path.write_text(json.dumps(record))
    text = failure(run(versions(2), engine=resume(accept=("work",))), StoreError)
    assert "the output of work in the record of run run-1 is not what was written" in text
    assert run(versions(2), engine=resume()).output == 120


def test_a_record_outlives_the_store(run: Runner) -> None:
    """Results are gone: everything runs again, unless the user accepts what the record says."""
    run(versions(1))
    shutil.rmtree(Path(data_uri().removeprefix("file://")))
    assert run(versions(1), engine=resume(accept=("number", "work"))).executed == {"add"}
    shutil.rmtree(Path(data_uri().removeprefix("file://")))
    assert run(versions(1), engine=resume()).executed == {"number", "work", "add"}


# ── Overrides ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("m", "there is no parameter 'm'"),
        ("rates.rigth", "rates.rigth: Extra inputs are not permitted"),
        ("rats.right", "did you mean 'rates'?"),
        ("n.deep", "there is no parameter 'n.deep'"),
    ],
)
def test_an_unknown_parameter_is_named(run: Runner, tmp_path: Path, path: str, said: str) -> None:
    run(fails_first, path=str(tmp_path))
    assert said in failure(run(fails_first, path="", engine=resume(overrides={path: 1})), SpecError)


def test_a_value_that_does_not_fit_is_refused(run: Runner, tmp_path: Path) -> None:
    run(fails_first, path=str(tmp_path))
    ran = run(fails_first, path="", engine=resume(overrides={"rates.right": "many"}))
    assert "the parameters of run run-1 do not fit fails-first any more" in failure(ran, SpecError)
