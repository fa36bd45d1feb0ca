"""Edits of the world around the code: files, variables, parameters, data sets, resources, placements."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pyarrow import parquet
from pydantic import Field

from ml_platform.data.sources import source_identity
from ml_platform.engine import dag, task
from ml_platform.specs.base import Spec
from ml_platform.specs.contracts import Column, Contract
from ml_platform.specs.references import Dataset
from ml_platform.specs.resources import Horovod, Spark, SparkSpec, Tracking
from tests.engine.mutations.policies import prefect_keys

CSV = "city,age\nBern,3\nThun,4\n"
CONTRACT = Contract(columns=(Column(name="age", type="integer"), Column(name="city", type="string")))


class NetSpec(Spec):
    hidden: tuple[int, ...] = (64, 32)
    rates: dict[str, float] = Field({"first": 0.1, "second": 0.2})


@task(probe=source_identity)
def load(source: str) -> int:
    return len(source)


@task(reads=["sql/*.sql"], environment=["REGION"])
def query(value: Any) -> str:
    return str(value)


@task
def train(table: Dataset, net: NetSpec, job: Any = Horovod(ranks=2), run: Any = Tracking()) -> int:
    return table.rows


@task
def count(table: Dataset, spark: Any = Spark()) -> int:
    return table.rows


BODIES = {"load": load, "query": query, "train": train, "count": count}


@dag
def job(
    source: str,
    value: Any,
    table: Dataset,
    net: NetSpec,
    ranks: dict[str, Any],
    conf: dict[str, str],
    nested: bool,
) -> list[Any]:
    return [
        load(source),
        query(value),
        train(table, net, job=Horovod(**ranks), run=Tracking(nested=nested)),
        count(table, spark=SparkSpec(conf=conf)),
    ]


@dataclass
class World:
    """A folder, and the parameters of a run in it."""

    folder: Path
    parameters: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def made(folder: Path) -> World:
        (folder / "sql").mkdir(parents=True)
        (folder / "sql" / "rows.sql").write_text("SELECT 1")
        (folder / "table.csv").write_text(CSV)
        (folder / "link.csv").symlink_to(folder / "table.csv")
        (folder / "parts").mkdir()
        for part in ("a", "b"):
            parquet.write_table(pa.table({"age": [len(part)]}), folder / "parts" / f"{part}.parquet")
        table = Dataset(uri="file:///store/a", contract=CONTRACT, rows=2, bytes=10, fingerprint="f" * 64)
        parameters = {
            "source": str(folder / "table.csv"),
            "value": 1,
            "table": table,
            "net": NetSpec(),
            "ranks": {"ranks": 2},
            "conf": {},
            "nested": False,
        }
        return World(folder, parameters)

    def keys(self) -> dict[str, dict[str, str | None]]:
        """By task: the key of this engine's planner, and that of Prefect's policies."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            decided = {node.name: f"{node.own} {node.inputs}" for node in job.plan(**self.parameters).nodes}
        finally:
            os.chdir(before)
        taken = {"load": ("source",), "query": ("value",), "train": ("table", "net"), "count": ("table",)}
        return {
            node: {"ours": key, **prefect_keys(BODIES[node], {n: self.parameters[n] for n in taken[node]})}
            for node, key in decided.items()
        }

    def uses(self, **parameters: Any) -> None:
        self.parameters |= parameters

    def other_table(self, **changes: Any) -> None:
        self.uses(table=self.parameters["table"].model_copy(update=changes))


@dataclass(frozen=True)
class WorldEdit:
    """What changes, and what that must do to the key of a task."""

    name: str
    must: Literal["miss", "hit"]
    task: str
    apply: Callable[[World], Any]
    first: Callable[[World], Any] = lambda world: None
    """Done before the first key is taken."""


def write(name: str, text: str) -> Callable[[World], Any]:
    return lambda world: (world.folder / name).write_text(text)


def same_times(world: World) -> None:
    """Another value of the same length, and the times put back: only the inode's change time tells."""
    path = world.folder / "table.csv"
    times = path.stat()
    path.write_text(CSV.replace("3", "5"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def through_a_hard_link(world: World) -> None:
    os.link(world.folder / "table.csv", world.folder / "other.csv")
    (world.folder / "other.csv").write_text(CSV.replace("3", "6"))


def more_parts(world: World) -> None:
    parquet.write_table(pa.table({"age": [9]}), world.folder / "parts" / "c.parquet")


def columns(**changes: Any) -> Callable[[World], Any]:
    first, *rest = CONTRACT.columns
    changed = Contract(columns=(first.model_copy(update=changes), *rest))
    return lambda world: world.other_table(contract=changed)


def variable(name: str, value: str) -> Callable[[World], Any]:
    return lambda world: os.environ.__setitem__(name, value)


def in_parts(world: World) -> None:
    world.uses(source=str(world.folder / "parts"))


def through_the_link(world: World) -> None:
    world.uses(source=str(world.folder / "link.csv"))


def again(world: World) -> None:
    """The same bytes in a new file: another inode, other times."""
    path = world.folder / "table.csv"
    shutil.copy(path, world.folder / "copy")
    (world.folder / "copy").replace(path)


WORLD_EDITS = [
    WorldEdit("one cell of one file", "miss", "load", write("table.csv", CSV.replace("3", "7"))),
    WorldEdit("a row more", "miss", "load", write("table.csv", CSV + "Basel,9\n")),
    WorldEdit("an edit within the same second, times put back", "miss", "load", same_times),
    WorldEdit(
        "same file through a symbolic link",
        "miss",
        "load",
        write("table.csv", CSV + "x,1\n"),
        through_the_link,
    ),
    WorldEdit("same file through a hard link", "miss", "load", through_a_hard_link),
    WorldEdit("a new file in a folder", "miss", "load", more_parts, in_parts),
    WorldEdit(
        "a file less in a folder",
        "miss",
        "load",
        lambda w: (w.folder / "parts" / "b.parquet").unlink(),
        in_parts,
    ),
    WorldEdit("another source", "miss", "load", lambda w: w.uses(source="sklearn:iris")),
    WorldEdit("a file named in reads", "miss", "query", write("sql/rows.sql", "SELECT 2")),
    WorldEdit("a new file that reads names", "miss", "query", write("sql/more.sql", "SELECT 1")),
    WorldEdit("a file of reads removed", "miss", "query", lambda w: (w.folder / "sql" / "rows.sql").unlink()),
    WorldEdit("a declared variable", "miss", "query", variable("REGION", "eu")),
    WorldEdit("True for 1", "miss", "query", lambda w: w.uses(value=True)),
    WorldEdit("1.0 for 1", "miss", "query", lambda w: w.uses(value=1.0)),
    WorldEdit("'1' for 1", "miss", "query", lambda w: w.uses(value="1")),
    WorldEdit(
        "order of a list", "miss", "query", lambda w: w.uses(value=[2, 1]), lambda w: w.uses(value=[1, 2])
    ),
    WorldEdit("a field of a spec", "miss", "train", lambda w: w.uses(net=NetSpec(hidden=(64, 16)))),
    WorldEdit("a value deep in a spec", "miss", "train", lambda w: w.uses(net=NetSpec(rates={"first": 0.3}))),
    WorldEdit("one cell of a data set", "miss", "train", lambda w: w.other_table(fingerprint="e" * 64)),
    WorldEdit("contract: nullable", "miss", "train", columns(nullable=False)),
    WorldEdit("contract: type", "miss", "train", columns(type="float")),
    WorldEdit(
        "contract: label",
        "miss",
        "train",
        lambda w: w.other_table(contract=CONTRACT.model_copy(update={"label": "city"})),
    ),
    WorldEdit("ranks", "miss", "train", lambda w: w.uses(ranks={"ranks": 1})),
    WorldEdit(
        "a Spark setting of the task",
        "miss",
        "count",
        lambda w: w.uses(conf={"spark.sql.ansi.enabled": "false"}),
    ),
    WorldEdit("the same bytes written again", "hit", "load", again),
    WorldEdit("touched", "hit", "load", lambda w: (w.folder / "table.csv").touch()),
    WorldEdit("a hidden file in a folder", "hit", "load", write("parts/_SUCCESS", ""), in_parts),
    WorldEdit("a file that reads does not name", "hit", "query", write("sql/notes.txt", "later")),
    WorldEdit("a variable that is not declared", "hit", "query", variable("OTHER_REGION", "eu")),
    WorldEdit(
        "order of a mapping",
        "hit",
        "train",
        lambda w: w.uses(net=NetSpec(rates={"second": 0.2, "first": 0.1})),
    ),
    WorldEdit(
        "files of a data set in another order and place",
        "hit",
        "train",
        lambda w: w.other_table(uri="file:///store/b", bytes=11),
    ),
    WorldEdit(
        "another place for the ranks",
        "hit",
        "train",
        lambda w: w.uses(ranks={"ranks": 2, "backend": "processes"}),
    ),
    WorldEdit(
        "a longer timeout", "hit", "train", lambda w: w.uses(ranks={"ranks": 2, "start_timeout_s": 300})
    ),
    WorldEdit("a tracking run of its own", "hit", "train", lambda w: w.uses(nested=True)),
    WorldEdit("another placement", "hit", "count", variable("ML_PLATFORM_PLACEMENT", "small")),
    WorldEdit("another log level", "hit", "query", lambda w: logging.getLogger().setLevel(logging.DEBUG)),
]
