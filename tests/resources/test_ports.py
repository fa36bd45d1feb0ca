"""A port for a server that will listen later."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ml_platform.resources import ports
from ml_platform.resources.ports import free_port


def test_the_kernel_gives_it_to_nobody_else() -> None:
    """Whoever connects, or binds to port 0, gets one of another range."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(ports.BELOW_THE_KERNELS_OWN) < max(lowest, 32_768)
    port = free_port()
    assert port in ports.BELOW_THE_KERNELS_OWN
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_taken_one_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "BELOW_THE_KERNELS_OWN", range(port, port + 1))
        monkeypatch.setattr(ports, "TRIES", 1)
        with pytest.raises(OSError, match="no free port"):
            free_port()
