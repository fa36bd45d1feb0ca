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


def test_the_secret_of_a_refused_address_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(retrain, ["plan", "--source", "https://ada:geheim@example.org/t.csv"]) == 2
    said = "".join(capfd.readouterr())
    assert ("geheim" in said, "https://example.org/t.csv" in said) == (False, True)


def test_a_server_that_does_not_answer_is_infrastructure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(StoreError, match="cannot be read"):
        source_columns(f"http://127.0.0.1:{free_port()}/t.csv")
