"""Ports for servers that listen only some seconds after they were told where."""

from __future__ import annotations

import random
import socket

BELOW_THE_KERNELS_OWN = range(20_000, 32_768)
"""Linux deals ports from 32768 up to whoever connects or asks for any: those are taken in the meantime."""
TRIES = 100


def free_port() -> int:
    """A loopback port that nobody has.

    Raises:
        OSError: None of a hundred is free.
    """
    fault: OSError | None = None
    for port in random.SystemRandom().sample(BELOW_THE_KERNELS_OWN, TRIES):
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                return port
        except OSError as error:
            fault = error
    raise OSError("no free port on 127.0.0.1") from fault
