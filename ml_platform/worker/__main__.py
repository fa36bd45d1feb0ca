"""`python -m ml_platform.worker`: one rank. Started by a backend of `ml_platform.resources.horovod`.

The control connection and the key that signs its messages are inherited file descriptors: neither a
port nor an argument nor the environment gives them away.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import socket
from collections.abc import Sequence

from ml_platform.worker.channel import KEY_BYTES, Channel
from ml_platform.worker.lifeline import die_with


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m ml_platform.worker", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process that must live")
    parser.add_argument("--control-fd", type=int, required=True, help="connected socket")
    parser.add_argument("--key-fd", type=int, required=True, help="pipe with the key")
    parser.add_argument("--world-size", type=int, required=True)
    parser.add_argument("--local-rank", type=int, required=True)
    parser.add_argument("--beat-s", type=float, default=1.0, help="seconds between heartbeats")
    parser.add_argument("--no-preload", action="store_true", help="import TensorFlow when a job does")
    args = parser.parse_args(words)
    die_with(args.parent)
    faulthandler.enable()
    channel = Channel(_connection(args.control_fd), _key(args.key_fd), side="rank")

    from ml_platform.worker.serve import serve

    serve(
        channel,
        world_size=args.world_size,
        local_rank=args.local_rank,
        beat_s=args.beat_s,
        preload=not args.no_preload,
    )


def _connection(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


def _key(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read(KEY_BYTES)


if __name__ == "__main__":
    main()
