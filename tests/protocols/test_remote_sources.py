"""Tables elsewhere: one suite for web servers, S3 and fsspec's file systems."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pytest

from flows.retrain import retrain
from ml_platform import dag, task
from ml_platform.cli.dag_command import main
from ml_platform.data.sources import open_source, source_columns, source_identity
from ml_platform.errors import DataError, SpecError, StoreError
from ml_platform.resources.ports import free_port
from ml_platform.store.location import home
from tests.protocols.stores import S3Server


class Place(Protocol):
    """Where a test puts files."""

    root: str
    has_folders: bool

    def put(self, name: str, content: str) -> str:
        """The URI of a file with this content."""


class Served:
    has_folders = False

    def __init__(self, folder: Path, port: int) -> None:
        self.root, self._folder = f"http://127.0.0.1:{port}", folder

    def put(self, name: str, content: str) -> str:
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_text(content)
        return f"{self.root}/{name}?token=${{TABLE_TOKEN}}"


class Bucket:
    has_folders = True

    def __init__(self, server: S3Server) -> None:
        self._client, self.root = server.client(), "s3://tables"
        self._client.create_bucket(Bucket="tables")

    def put(self, name: str, content: str) -> str:
        self._client.put_object(Bucket="tables", Key=name, Body=content.encode())
        return f"{self.root}/{name}"

    def clear(self) -> None:
        for item in self._client.list_objects_v2(Bucket="tables").get("Contents", ()):
            self._client.delete_object(Bucket="tables", Key=item["Key"])
        self._client.delete_bucket(Bucket="tables")


class Memory:
    has_folders = True
    root = "memory://tables"

    def put(self, name: str, content: str) -> str:
        import fsspec

        fsspec.filesystem("memory").pipe(f"/tables/{name}", content.encode())
        return f"{self.root}/{name}"

    def clear(self) -> None:
        import fsspec

        fsspec.filesystem("memory").rm("/tables", recursive=True)


class _WithoutDates(SimpleHTTPRequestHandler):
    """Two contents within a second have the same date: this server says none."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified":
            super().send_header(keyword, value)

    def do_GET(self) -> None:
        if "token=geheim" in self.path:
            super().do_GET()
        else:
            self.send_error(401)

    def do_HEAD(self) -> None:
        """An address that is signed for GET alone refuses this."""
        if "signed" in self.path:
            self.send_error(403)
        else:
            super().do_HEAD()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(params=["http", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TABLE_TOKEN", "geheim")
    if request.param == "http":
        (tmp_path / "www").mkdir()
        handler = partial(_WithoutDates, directory=str(tmp_path / "www"))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Served(tmp_path / "www", server.server_port)
        server.shutdown()
        thread.join()
        server.server_close()
        return
    made = Memory() if request.param == "memory" else Bucket(request.getfixturevalue("s3_environment"))
    yield made
    made.clear()


def test_a_file_is_copied_once_and_again_when_it_has_changed(place: Place) -> None:
    uri = place.put("my_table.csv", "a;label\n1;x\n")
    assert source_columns(uri) == ("a", "label")
    first = source_identity(uri)
    (copy,) = home().glob("sources/*/*/my_table.csv")
    before = copy.stat().st_mtime_ns
    assert source_identity(uri) == first
    assert copy.stat().st_mtime_ns == before
    place.put("my_table.csv", "b;label\n2;x\n")
    assert source_columns(uri) == ("b", "label")
    assert source_identity(uri) != first
    assert len(list(home().glob("sources/*/*/my_table.csv"))) == 1


def test_an_address_that_is_signed_for_get_alone_is_read(place: Place) -> None:
    assert source_columns(place.put("signed.csv", "a,label\n1,x\n")) == ("a", "label")


def test_a_folder_is_copied_whole(place: Place) -> None:
    if not place.has_folders:
        return
    for year in ("2023", "2024"):
        place.put(f"t/year={year}/x.csv", f"a,label\n{year},x\n")
    place.put("t-other/y.csv", "b,label\n1,x\n")
    source = open_source(f"{place.root}/t")
    assert source.columns() == ("a", "label", "year")
    assert sorted(source.identity()) == ["year=2023/x.csv", "year=2024/x.csv"]


def test_what_is_not_there_is_said_without_secrets(place: Place) -> None:
    uri = place.put("there.csv", "a,label\n1,x\n").replace("there", "missing")
    with pytest.raises(DataError, match=f"there is no file {place.root}/missing.csv") as raised:
        source_columns(uri)
    assert "geheim" not in str(raised.value)


@pytest.mark.slow
def test_the_secret_of_an_address_stays_in_the_environment(
    place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a source is called goes into plans, keys, records, logs and errors."""
    uri = place.put("my_table.csv", "a,label\n" + "1,x\n2,y\n" * 40)
    assert main(retrain, ["plan", "--source", uri]) == 0
    monkeypatch.setenv("TABLE_TOKEN", "geheim-no-more")
    with pytest.raises(DataError, match="there is no file"):
        source_columns(uri.replace("my_table", "missing"))
    written = [path.read_bytes() for path in home().rglob("*") if path.is_file()]
    assert not any(b"geheim" in content for content in written)
    assert "geheim" not in "".join(capfd.readouterr())


def columns_of(source: str) -> tuple[str, ...]:
    return source_columns(source)


@task(probe=columns_of)
def count_columns(source: str) -> int:
    return len(source_columns(source))


@dag(preflight=columns_of)
def counted(source: str) -> int:
    return count_columns(source)


@pytest.fixture
def block(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Secret block `table-token`. Yields the folder in which this session's Prefect keeps everything."""
    from prefect.blocks.system import Secret
    from prefect.settings import PREFECT_API_URL, temporary_settings

    (database,) = tmp_path_factory.getbasetemp().glob("home[0-9]*/prefect.db")
    with temporary_settings(updates={PREFECT_API_URL: server}):
        Secret(value="geheim").save("table-token", overwrite=True)
        yield database.parent
        Secret.delete("table-token")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["http"], indirect=True)
def test_a_secret_in_a_prefect_block_is_written_nowhere(
    block: Path, place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Planned, run and failed, in a real server: its runs, artifacts, logs and records, and ours."""
    from ml_platform.engine.prefect_door import flow_runs_of_this_process, flush, wait_until_recorded

    uri = place.put("my_table.csv", "a,label\n1,x\n")
    monkeypatch.delenv("TABLE_TOKEN")
    assert main(counted, ["plan", "--source", uri]) == 0
    assert counted(source=uri) == 2
    with pytest.raises(DataError, match="there is no file"):
        counted(source=uri.replace("my_table", "missing"))
    flush(timeout_s=30)
    wait_until_recorded(flow_runs_of_this_process(), timeout_s=30)
    files = [path for folder in (home(), block) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"run.json", "prefect.db"}
    assert [path.name for path in files if b"geheim" in path.read_bytes()] == []
    assert "geheim" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("place", ["http"], indirect=True)
def test_a_secret_that_nobody_has_is_named_with_both_places(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TABLE_TOKEN")
    with pytest.raises(SpecError, match=r"variable TABLE_TOKEN, or the Prefect Secret block 'table-token'"):
        source_columns(place.put("t.csv", "a,label\n1,x\n"))


@pytest.mark.parametrize(
    "uri",
    [
        "https://ada:geheim@example.org/t.csv",
        "https://example.org/t.csv?X-Amz-Signature=geheim",
        "https://example.org/t.csv?x=geheim-geheim-geheim-geheim",
        "https://example.org/t.csv?token=${NOT_SET_ANYWHERE}",
    ],
)
def test_an_address_that_holds_a_secret_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="environment variable") as raised:
        source_columns(uri)
    assert "geheim" not in str(raised.value)


@pytest.mark.slow
def test_the_secret_of_a_refused_address_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(retrain, ["plan", "--source", "https://ada:geheim@example.org/t.csv"]) == 2
    said = "".join(capfd.readouterr())
    assert ("geheim" in said, "https://example.org/t.csv" in said) == (False, True)


def test_a_server_that_does_not_answer_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(StoreError, match="cannot be read"):
        source_columns(f"http://127.0.0.1:{free_port()}/t.csv")
