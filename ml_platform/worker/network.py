"""Which interface a job uses: the one with an address in the job's network, on every machine."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from ml_platform.errors import ResourceStartError

_KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}
"""A peer whose machine vanished is noticed after about ten seconds; names as in `socket`."""


@dataclass(frozen=True)
class Interface:
    """One of this machine's interfaces, and its address in the job's network."""

    name: str
    address: str


def own_interface(network: str) -> Interface:
    """This machine's interface in `network`, such as `127.0.0.0/8` or `10.0.0.0/16`.

    Raises:
        ResourceStartError: There is none. It lists the addresses that there are.
    """
    import psutil

    wanted = ipaddress.ip_network(network)
    seen = []
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        for found in addresses:
            if found.family == socket.AF_INET:
                if ipaddress.ip_address(found.address) in wanted:
                    return Interface(name, found.address)
                seen.append(f"{name} {found.address}")
    raise ResourceStartError(
        f"{socket.gethostname()} has no address in the network of the job",
        wanted=f"an IPv4 address in {network}",
        got=", ".join(seen) or "no address",
        hint="`horovod.network` in the placement names the network that all machines share",
    )


def keep_alive(connection: socket.socket) -> None:
    """Send small messages at once, and notice within seconds that the other machine is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
