"""Starting a rank: a process of its own that inherits its connection and the key that signs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO


def spawn_rank(
    command: Sequence[str],
    environment: Mapping[str, str],
    connection: socket.socket,
    key: bytes,
    *,
    output: int | IO[bytes],
) -> subprocess.Popen[bytes]:
    """Start a rank that dies with the calling *thread*, leads a process group and reads nothing.

    Args:
        command: Interpreter and arguments; the descriptors and this process's number are added.
        environment: What is set beside this process's own environment.
        connection: The rank's end. The caller closes its own copy.
        key: Goes through a pipe: neither arguments nor environment give it away.
        output: Where stdout and stderr go.
    Raises:
        OSError: The interpreter cannot be started.
    """
    key_out = key_pipe(key)
    try:
        descriptors = (connection.fileno(), key_out)
        options = {"parent": os.getpid(), "control-fd": descriptors[0], "key-fd": descriptors[1]}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return subprocess.Popen(
            [*command, *words],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=descriptors,
            process_group=0,
        )
    finally:
        os.close(key_out)


def key_pipe(key: bytes) -> int:
    """The reading end of a pipe that holds a key. The caller closes it."""
    key_out, key_in = os.pipe()
    try:
        os.write(key_in, key)
    finally:
        os.close(key_in)
    return key_out


def import_path() -> list[str]:
    """Where this process finds modules, less what every interpreter finds by itself."""
    paths = [str(Path(entry or ".").absolute()) for entry in sys.path]
    own = tuple(str(Path(prefix, "lib", "python")) for prefix in {sys.prefix, sys.base_prefix})
    return [path for path in dict.fromkeys(paths) if Path(path).exists() and not path.startswith(own)]
