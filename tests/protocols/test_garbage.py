"""Garbage, on every kind of storage: what is reached stays, whatever reaches it; the rest goes."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ml_platform.errors import StoreError
from ml_platform.specs.references import Dataset
from ml_platform.store import garbage
from ml_platform.store.garbage import Reached, Survey, contents, remove, survey
from ml_platform.store.manifest import MANIFEST, open_dataset
from ml_platform.store.objects import open_objects
from ml_platform.store.results import Result, Results
from tests.protocols.stores import LocalStore, S3Store, Store, stored
from tests.store.test_results import Newer, result

TABLE = pa.table({"k": [1, 2, 3]})
OLD_S = 25 * 3600
ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A platform folder without a store in it."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let what was written so far be some seconds old: something else is newer, and the clock says so."""

    def age(seconds: float) -> None:
        real = contents

        def later() -> tuple[Any, ...]:
            newest = garbage.Item(
                kind="unfinished", root="s3://x", key="newest", bytes=0, modified=time.time() + seconds
            )
            return (*real(), newest)

        monkeypatch.setattr(garbage, "contents", later)
        now = time.time
        monkeypatch.setattr(garbage.time, "time", lambda: now() + seconds)

    return age


def record(home: Path, run: str, *, dag: str = "d", state: str = "completed", names: Any = ()) -> Path:
    folder = home / "runs" / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"run": run, "dag": dag, "state": state, "nodes": names}))
    return folder


def uris(found: Survey) -> set[str]:
    return {item.uri for item in found.garbage}


def kept(found: Survey, dataset: Dataset) -> bool:
    return dataset.uri in {item.uri for item in found.kept}


def test_what_nothing_names_is_garbage_after_an_hour(store: Store, aged: Callable[[float], None]) -> None:
    dataset = stored("lost", TABLE)
    assert uris(survey(Reached())) == set()
    aged(OLD_S)
    found = survey(Reached())
    assert uris(found) == {dataset.uri}
    (item,) = found.garbage
    assert (item.kind, item.bytes) == ("data set", sum(len(store.read(key)) for key in store.names()))
    assert remove(found.garbage) == item.bytes
    assert store.names() == []


def test_a_run_keeps_what_it_names_and_older_runs_do_not(
    store: Store, home: Path, aged: Callable[[float], None]
) -> None:
    old, new, other = (stored("t", TABLE) for _ in range(3))
    for at, (run, dag, dataset) in enumerate(
        [("old", "d", old), ("new", "d", new), ("only", "another", other)]
    ):
        folder = record(home, run, dag=dag, names=[{"output": {"deep": [dataset.model_dump(mode="json")]}}])
        os.utime(folder / "run.json", (at, at))
    aged(OLD_S)
    assert uris(survey(Reached(), keep_runs=1)) == {old.uri}
    assert uris(survey(Reached(), keep_runs=2)) == set()
    (home / "runs" / "old" / "keep").touch()
    assert uris(survey(Reached(), keep_runs=1)) == set()
    assert uris(survey(Reached(), keep_runs=0)) == {new.uri, other.uri}


def test_a_backbone_stays_while_a_run_names_it(
    store: Store, home: Path, aged: Callable[[float], None]
) -> None:
    folder = home / "backbones"
    folder.mkdir(parents=True)
    used, unused, cut_short = (folder / name for name in (f"{ONE}.keras", f"{TWO}.keras", f".{THREE}.1-2"))
    for file in (used, unused, cut_short):
        file.write_bytes(b"network")
    record(home, "images", names=[{"output": {"backbone": used.as_uri()}}])
    aged(OLD_S)
    found = survey(Reached())
    assert uris(found) == {unused.as_uri(), cut_short.as_uri()}
    remove(found.garbage)
    assert list(folder.iterdir()) == [used]


def test_a_run_under_way_or_killed_keeps_what_it_names(
    store: Store, home: Path, aged: Callable[[float], None]
) -> None:
    dataset = stored("t", TABLE)
    folder = record(home, "running", state="running")
    line = json.dumps({"node": "n", "output": dataset.uri})
    (folder / "nodes.jsonl").write_text(f'{line}\n{{"node": "cut sho')
    aged(OLD_S)
    assert uris(survey(Reached(), keep_runs=0)) == set()


def test_results_of_kept_runs_and_what_they_name_stay(
    store: Store, home: Path, aged: Callable[[float], None]
) -> None:
    results = Results()
    reached, used, lost = (stored("t", TABLE) for _ in range(3))
    code = results.put_code({"a": 1})
    unused = results.put_code({"a": 2})
    results.put(result(ONE, ONE, reached.uri).model_copy(update={"run": "kept", "code": code}))
    results.put(result(TWO, TWO, used.uri).model_copy(update={"run": "gone"}))
    results.put(result(THREE, THREE, lost.uri).model_copy(update={"run": "gone"}))
    record(home, "kept", names=[{"node": "cached", "own": TWO, "inputs": TWO}])
    os.utime(record(home, "gone") / "run.json", (1, 1))
    aged(OLD_S)
    found = survey(Reached(), keep_runs=1)
    assert {item.key for item in found.garbage} == {
        f".results/{THREE}/{THREE}.json",
        f".results/code/{unused}.json",
        lost.uri.removeprefix(f"{store.uri}/"),
    }
    remove(found.garbage)
    assert [isinstance(results.find(own, own), Result) for own in (ONE, TWO, THREE)] == [True, True, False]
    assert results.get_code(code) == {"a": 1}
    assert [open_dataset(dataset.uri) for dataset in (reached, used)] == [reached, used]


def test_results_go_before_the_data_they_name(
    store: Store, aged: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short in the middle, a removal leaves no result without its data."""
    dataset = stored("t", TABLE)
    Results().put(result(ONE, ONE, dataset.uri).model_copy(update={"run": "gone"}))
    monkeypatch.setattr(garbage, "_serves_others", lambda: False)
    aged(OLD_S)
    found = survey(Reached())

    def cut(uri: str) -> None:
        raise StoreError("cut short")

    monkeypatch.setattr(garbage, "open_folder", cut)
    with pytest.raises(StoreError, match="cut short"):
        remove(found.garbage)
    assert not Results().any(ONE)
    assert open_dataset(dataset.uri) == dataset


def test_runs_recorded_elsewhere_keep_their_results(store: Store, aged: Callable[[float], None]) -> None:
    """A store outside the platform's folder may serve other machines."""
    dataset = stored("t", TABLE)
    Results().put(result(ONE, ONE, dataset.uri).model_copy(update={"run": "of another machine"}))
    aged(OLD_S)
    assert uris(survey(Reached())) == set()


def test_in_a_store_of_ones_own_a_run_without_a_record_keeps_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, aged: Callable[[float], None]
) -> None:
    monkeypatch.delenv("ML_PLATFORM_STORE", raising=False)
    dataset = stored("t", TABLE)
    Results().put(result(ONE, ONE, dataset.uri).model_copy(update={"run": "forgotten"}))
    aged(OLD_S)
    assert {item.kind for item in survey(Reached()).garbage} == {"data set", "result"}


def test_registered_models_keep_their_data_and_evaluations(
    store: Store, home: Path, aged: Callable[[float], None]
) -> None:
    dataset = stored("t", TABLE)
    (home / "evaluations").mkdir(parents=True)
    for digest in (ONE, TWO):
        (home / "evaluations" / f"holdout-{'f' * 16}-{digest[:16]}.parquet").write_bytes(b"1")
    aged(OLD_S)
    found = survey(Reached(fingerprints=frozenset({"f" * 36}), models=frozenset({ONE})))
    assert kept(found, dataset)
    assert [item.name for item in found.garbage] == [f"holdout-{'f' * 16}-{TWO[:16]}.parquet"]
    assert len(survey(Reached()).garbage) == 3


def test_what_a_killed_writer_left_is_garbage(store: Store, aged: Callable[[float], None]) -> None:
    name = uuid.uuid4().hex
    for key in (f"t/{name}/part.parquet", f"t/{uuid.uuid4().hex}.tmp-0123abcd/part.parquet"):
        if isinstance(store, LocalStore):
            Path(store.path, key).parent.mkdir(parents=True)
        store.write(key, b"12345")
    aged(OLD_S)
    found = survey(Reached())
    assert [(item.kind, item.bytes) for item in found.garbage] == [("unfinished", 5)] * 2
    remove(found.garbage)
    assert store.names() == []


def test_what_is_not_ours_is_neither_counted_nor_removed(store: Store, aged: Callable[[float], None]) -> None:
    """A store may be a folder that holds a person's own files."""
    for key in ("thesis.txt", "photos/me.jpg", f"{uuid.uuid4().hex}.json", "a/b/c/d.parquet"):
        if isinstance(store, LocalStore):
            Path(store.path, key).parent.mkdir(parents=True, exist_ok=True)
        store.write(key, b"1")
    assert contents() == ()
    aged(OLD_S)
    assert uris(survey(Reached())) == set()


@pytest.mark.parametrize("content", [b"", b'{"format":1', b'{"format":2,"rows":[]}'])
def test_a_manifest_that_cannot_be_read_may_be_a_registered_ones(
    store: Store, aged: Callable[[float], None], content: bytes
) -> None:
    stored("t", TABLE)
    store.write(next(key for key in store.names() if key.endswith(MANIFEST)), content)
    aged(OLD_S)
    assert uris(survey(Reached())) == set()


def test_results_of_a_newer_version_stay_with_what_they_name(
    store: Store, home: Path, aged: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = stored("t", TABLE)
    Results().put(Newer(**result(ONE, ONE, dataset.uri).model_dump()))
    monkeypatch.setattr(garbage, "_serves_others", lambda: False)
    aged(OLD_S)
    assert uris(survey(Reached(), keep_runs=0)) == set()


@pytest.mark.parametrize("content", ["", '{"run": "x", "nod', "\0" * 9])
def test_a_damaged_run_record_stops_everything(
    store: Store, home: Path, aged: Callable[[float], None], content: str
) -> None:
    """What it names is not known, so nothing may be called garbage."""
    stored("t", TABLE)
    (record(home, "torn") / "run.json").write_text(content)
    aged(OLD_S)
    with pytest.raises(StoreError, match=r"'torn' cannot be read(.|\n)*remove .*torn"):
        survey(Reached())


def test_after_a_clock_jumped_ahead_nothing_young_is_garbage(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored("t", TABLE)
    now = time.time
    monkeypatch.setattr(garbage.time, "time", lambda: now() + 10**7)
    assert uris(survey(Reached())) == set()


def test_after_a_clock_jumped_back_nothing_is_garbage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored("t", TABLE)
    now = time.time
    monkeypatch.setattr(garbage.time, "time", lambda: now() - 10**7)
    assert uris(survey(Reached())) == set()


@pytest.mark.slow
def test_old_uploads_that_were_never_finished_are_dropped(
    s3_environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's server says of every upload that it began in 2010."""
    bucket = S3Store(s3_environment)
    monkeypatch.setenv("ML_PLATFORM_STORE", bucket.uri)
    bucket.begin_upload("t/part")
    open_objects(bucket.uri).drop_uploads(before=1.0)
    assert len(bucket.uploads()) == 1
    remove(())
    assert bucket.uploads() == []
