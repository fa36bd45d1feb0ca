"""The rendezvous server: Horovod's protocol, one interface, raw bytes within bounds."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import psutil
import pytest

from ml_platform.resources.horovod import rendezvous as module
from ml_platform.resources.horovod.rendezvous import rendezvous


@pytest.fixture
def port() -> Iterator[int]:
    with rendezvous("127.0.0.1") as number:
        yield number


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_put_get_delete(port: int) -> None:
    """Bytes come back as they were; a key that is not there, or not any more, is 404."""
    value = bytes(range(256))
    assert ask(port, "GET", "/global/0") == (404, b"")
    assert ask(port, "PUT", "/global/0", value) == (200, b"")
    assert ask(port, "GET", "/global/0") == (200, value)
    assert ask(port, "GET", "/local_host/0") == (404, b"")
    assert ask(port, "DELETE", "/global/0") == (200, b"")
    assert ask(port, "GET", "/global/0") == (404, b"")


def test_each_job_has_an_empty_store() -> None:
    with rendezvous("127.0.0.1") as first:
        ask(first, "PUT", "/global/0", b"old")
    with rendezvous("127.0.0.1") as second:
        assert ask(second, "GET", "/global/0") == (404, b"")


def test_too_large_values_are_refused_before_they_are_read(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VALUE_BYTES", 100)
    assert ask(port, "PUT", "/global/0", b"x" * 101)[0] == 413
    monkeypatch.setattr(module, "STORE_BYTES", 150)
    assert ask(port, "PUT", "/global/0", b"x" * 100)[0] == 200
    assert ask(port, "PUT", "/global/1", b"x" * 100)[0] == 507
    assert ask(port, "PUT", "/global/0", b"y" * 100)[0] == 200, "the same key again takes no more room"


def test_a_value_that_is_cut_short_is_not_there(port: int) -> None:
    """A rank that dies in the middle of a word leaves nothing that another would take for whole."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as dying:
        dying.sendall(b"PUT /global/0 HTTP/1.0\r\nContent-Length: 10\r\n\r\nhalf")
        dying.shutdown(socket.SHUT_WR)
        assert dying.recv(100) == b"", "no answer, and it was heard to the end"
    assert ask(port, "GET", "/global/0") == (404, b"")


def test_other_paths_and_methods_are_refused(port: int) -> None:
    assert ask(port, "PUT", "/nowhere", b"x")[0] == 400
    assert ask(port, "PUT", "/a/b/c", b"x")[0] == 400
    assert ask(port, "GET", "/../etc/passwd")[0] == 404
    assert ask(port, "POST", "/global/0", b"x")[0] == 501


def test_listens_on_its_interface_alone_until_it_is_closed() -> None:
    def listening(port: int) -> list[str]:
        found = psutil.Process().net_connections(kind="inet")
        return [c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN and c.laddr.port == port]

    with rendezvous("127.0.0.1") as port:
        assert listening(port) == ["127.0.0.1"]
        stranger = socket.create_connection(("127.0.0.1", port))
        assert ask(port, "GET", "/global/0")[0] == 404, "a silent stranger holds nobody up"
    stranger.close()
    assert listening(port) == []
