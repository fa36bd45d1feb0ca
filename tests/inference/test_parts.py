"""A table is scored in parts; what is finished is not scored again, whatever became of the process."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.inference import parts
from ml_platform.inference.destination import Scored, write_predictions
from ml_platform.inference.flavours import FLAVOURS
from ml_platform.inference.parts import DirectParts, Part, PartWriter, content_digest, file_parts, gathered
from ml_platform.inference.progress import progress
from ml_platform.inference.raw_model import FAMILIES
from ml_platform.store.digests import file_digest
from ml_platform.store.manifest import DataFile

OUT = pa.schema([("x", pa.int64()), ("error", pa.string())])
IN = pa.schema([("x", pa.int64())])


@dataclass(frozen=True)
class Noting:
    """Scores nothing, notes what it was given, and dies before a row that it is afraid of."""

    log: Path
    afraid_of: int = -1
    imports: tuple[str, ...] = ()

    def open(self) -> None:
        pass

    def score(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, int]:
        rows = batch.column("x").to_pylist()
        if self.afraid_of in rows:
            os.kill(os.getpid(), signal.SIGKILL)
        with self.log.open("a") as log:
            log.writelines(f"{row}\n" for row in rows)
        errors = pa.array(["odd" if row % 2 else None for row in rows], pa.string())
        return pa.RecordBatch.from_arrays([batch.column("x"), errors], schema=OUT), sum(r % 2 for r in rows)

    def noted(self) -> list[int]:
        seen = [int(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(seen)


def files_of(folder: Path) -> list[DataFile]:
    return [
        DataFile(uri=path.as_uri(), rows=1, bytes=1, checksum=file_digest(path))
        for path in sorted(folder.glob("*.parquet"))
    ]


@dataclass(frozen=True)
class Job:
    """Scores files in this process, as a Spark job does on its executors."""

    files: list[DataFile]
    scorer: Noting
    base: str = "model 1"

    def __call__(self, folder: Path, finished: Mapping[str, Part]) -> Scored:
        writer = PartWriter(self.scorer, self.base, str(folder), OUT.serialize().to_pybytes())
        found = file_parts(self.files)
        keys = [writer.key(part.identity) for part in found]
        todo = tuple(part for key, part in zip(keys, found, strict=True) if key not in finished)
        runs = DirectParts(writer, {}, todo, IN.serialize().to_pybytes())
        numbers = pa.RecordBatch.from_pydict({"id": list(range(len(todo)))})
        said = [row for batch in runs(iter([numbers])) for row in batch.to_pylist()]
        known = {**finished, **{row["key"]: Part(row["key"], row["rows"], row["failed"]) for row in said}}
        return Scored(tuple(known[key] for key in keys), OUT)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three files of four rows."""
    folder = tmp_path / "data #1 é"
    folder.mkdir()
    for number in range(3):
        pq.write_table(pa.table({"x": [*range(4 * number, 4 * number + 4)]}), folder / f"{number}.parquet")
    return folder


KILLED = """
import sys
from pathlib import Path
from ml_platform.inference.destination import write_predictions
from tests.inference.test_parts import Job, Noting, files_of
folder, log, destination = map(Path, sys.argv[1:])
write_predictions(Job(files_of(folder), Noting(log, afraid_of=9)), str(destination), {})
"""


def test_a_scoring_that_is_killed_goes_on_where_it_was(table: Path, tmp_path: Path) -> None:
    """Two of three files were scored when it died: the next scores the third alone."""
    destination, log = tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-c", KILLED, str(table), str(log), str(destination)]
    assert subprocess.run(command, env=dict(os.environ), check=False).returncode == -signal.SIGKILL
    assert Noting(log).noted() == list(range(8))
    assert not destination.exists()

    written = write_predictions(Job(files_of(table), Noting(log)), str(destination), {})
    assert Noting(log).noted() == [8, 9, 10, 11]
    assert (written.rows, written.failed_rows, written.reused_rows) == (12, 6, 8)
    assert pq.read_table(destination).column("x").to_pylist() == list(range(12)), "in the table's order"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_scoring_that_fails_leaves_its_parts_to_the_next(table: Path, tmp_path: Path) -> None:
    destination, log = str(tmp_path / "out"), tmp_path / "log"

    def failing(folder: Path, finished: Mapping[str, Part]) -> Scored:
        Job(files_of(table)[:2], Noting(log))(folder, finished)
        raise OSError("the disk is on fire")

    with pytest.raises(Exception, match="predictions cannot be written"):
        write_predictions(failing, destination, {})
    assert Noting(log).noted() == list(range(8))
    assert write_predictions(Job(files_of(table), Noting(log)), destination, {}).reused_rows == 8
    assert Noting(log).noted() == [8, 9, 10, 11]


def test_only_what_changed_is_scored_again(table: Path, tmp_path: Path) -> None:
    """Nothing, one file, a file more, a file less, the model or the code."""
    destination, log = str(tmp_path / "out"), tmp_path / "log"
    job = Job(files_of(table), Noting(log))
    write_predictions(job, destination, {})
    assert len(Noting(log).noted()) == 12

    assert write_predictions(job, destination, {}).reused_rows == 12
    assert Noting(log).noted() == []

    pq.write_table(pa.table({"x": [40, 50]}), table / "1.parquet")
    assert write_predictions(Job(files_of(table), Noting(log)), destination, {}).rows == 10
    assert Noting(log).noted() == [40, 50]

    (table / "0.parquet").rename(table / "9.parquet")
    write_predictions(Job(files_of(table), Noting(log)), destination, {})
    assert Noting(log).noted() == []
    assert pq.read_table(destination).column("x").to_pylist() == [40, 50, 8, 9, 10, 11, 0, 1, 2, 3]

    (table / "9.parquet").unlink()
    assert write_predictions(Job(files_of(table), Noting(log)), destination, {}).rows == 6
    assert write_predictions(Job(files_of(table), Noting(log), "model 2"), destination, {}).reused_rows == 0
    assert Noting(log).noted() == [8, 9, 10, 11, 40, 50]


def test_equal_files_are_scored_once_and_count_twice(table: Path, tmp_path: Path) -> None:
    (table / "7.parquet").write_bytes((table / "0.parquet").read_bytes())
    assert (
        write_predictions(Job(files_of(table), Noting(tmp_path / "log")), str(tmp_path / "o"), {}).rows == 16
    )


def test_a_damaged_part_is_scored_again(table: Path, tmp_path: Path) -> None:
    destination, log = tmp_path / "out", tmp_path / "log"
    write_predictions(Job(files_of(table), Noting(log)), str(destination), {})
    first = min(destination.glob("part-*"))
    whole = first.read_bytes()
    for content in (whole + b"x", whole[:-1] + b"x"):
        first.write_bytes(content)
        Noting(log).noted()
        write_predictions(Job(files_of(table), Noting(log)), str(destination), {})
        assert Noting(log).noted() == [0, 1, 2, 3]


def test_the_code_of_scoring_is_part_of_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = parts.base_digest("model", 3)
    assert parts.base_digest("model", 3) == before != parts.base_digest("model", 4)
    monkeypatch.setattr(parts, "scoring_code", lambda: "other code")
    assert parts.base_digest("model", 3) != before


def test_rows_are_known_by_their_values() -> None:
    """Not by what lies in memory under a null, or where a batch was cut out."""
    long = pa.record_batch({"x": pa.array([1, None, 3, 4]), "s": ["a", "b", None, "d"]})
    again = pa.record_batch({"x": pa.array([None, 3, 4]), "s": ["b", None, "d"]})
    assert content_digest([long.slice(1)]) == content_digest([again])
    assert content_digest([long]) != content_digest([again])
    renamed = again.rename_columns(["y", "s"])
    moved = pa.record_batch({"x": pa.array([3, None, 4]), "s": ["b", None, "d"]})
    assert len({content_digest([each]) for each in (again, renamed, moved)}) == 3


def test_a_part_of_a_frame_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pa.record_batch({"x": list(range(10))})
    monkeypatch.setattr(parts, "PART_ROWS", 25)
    assert [len(part) for part in gathered([batch] * 7)] == [3, 3, 1]
    monkeypatch.setattr(parts, "PART_BYTES", 100)
    assert [len(part) for part in gathered([batch] * 5)] == [2, 2, 1]
    assert list(gathered([])) == []


def test_row_groups_are_gathered_into_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": list(range(10))}), tmp_path / "x.parquet", row_group_size=3)
    monkeypatch.setattr(parts, "PART_ROWS", 6)
    found = file_parts(files_of(tmp_path))
    assert [(part.first, part.groups) for part in found] == [(0, 2), (2, 2)]
    assert len({part.identity for part in found}) == 2


def test_progress_is_told_while_parts_appear(tmp_path: Path) -> None:
    """Each time that there are more; no clock is asked in the test."""
    import threading

    said: list[str] = []
    told = threading.Event()

    def tell(line: str) -> None:
        said.append(line)
        told.set()

    with progress(tmp_path, 4, tell, every_s=0.01):
        (tmp_path / f"{'a' * 64}.parquet").touch()
        assert told.wait(60)
    assert said[0].startswith("1 of 4 parts are scored after ")
    with progress(tmp_path, 4, None):
        pass


NOT_PREDICTING = (
    "errors.py",
    "store",
    "resources",
    "data/classes.py",
    "data/remote.py",
    "data/secret_uris.py",
    "tracking/server.py",
)
"""What a scorer reaches that moves rows and files, reports, trains, or holds a name."""
NOT_COMPUTING = {
    "pyspark",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "yaml",
    "threadpoolctl",
    "fsspec",
    "cloudpickle",
    "google",  # protobuf, for the names of a SavedModel's signatures
}
"""Libraries that have no part in the value of a prediction."""


def test_the_key_of_a_part_covers_all_code_and_libraries_that_predict() -> None:
    """Whatever the modules that score, and those that open models, import: also inside of functions."""
    tables = [entry.opener for table in (FAMILIES, FLAVOURS) for entry in table.values()]
    openers = {opener.partition(":")[0] for opener in tables}
    ours, theirs = _reached({"ml_platform.inference.score", "ml_platform.inference.any_model", *openers})
    assert {name for name in ours if not _is_of(name, (*parts.CODE, *NOT_PREDICTING))} == set()
    distributions = packages_distributions()
    lacking = {
        name
        for name in theirs - NOT_COMPUTING - sys.stdlib_module_names
        if not {each.lower().replace("_", "-") for each in distributions.get(name, ())} & set(parts.PACKAGES)
    }
    assert lacking == set()


def _reached(modules: set[str]) -> tuple[set[str], set[str]]:
    """Our modules that these import, through those that decide predictions; and all other top-level names."""
    ours, theirs, to_do = set(modules), set(), list(modules)
    while to_do:
        for node in ast.walk(ast.parse(_file(to_do.pop()).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                if not name.startswith("ml_platform."):
                    theirs.add(name.partition(".")[0])
                elif name not in ours and _file(name).is_file() and _file(name).name != "__init__.py":
                    ours.add(name)
                    to_do += [name] if not _is_of(name, NOT_PREDICTING) else []
    return ours, theirs - {"ml_platform"}


def _is_of(module: str, these: tuple[str, ...]) -> bool:
    """Whether a module is one of these files, or in one of these folders."""
    file = _file(module).relative_to(Path(parts.__file__).parents[1])
    return file.as_posix() in these or file.parts[0] in these


def _file(module: str) -> Path:
    path = Path(parts.__file__).parents[2].joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
