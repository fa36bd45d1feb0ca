"""Threads of nodes: side by side, used again, at most so many, and no reason for a process to stay."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from ml_platform.engine.threads import NodeThreads


def test_calls_run_side_by_side_and_threads_are_used_again() -> None:
    threads, meeting = NodeThreads(2), threading.Barrier(2, timeout=60)

    def meet() -> int:
        meeting.wait()
        return threading.get_ident()

    first = {future.result() for future in [threads.submit(meet), threads.submit(meet)]}
    assert len(first) == 2
    second = {future.result() for future in [threads.submit(meet), threads.submit(meet)]}
    assert second == first
    threads.close(wait=True)
    assert first.isdisjoint(thread.ident for thread in threading.enumerate())


def test_an_error_of_a_call_belongs_to_its_future_alone() -> None:
    threads = NodeThreads(1)

    def fail() -> int:
        raise KeyboardInterrupt("of this call")

    failed, fine = threads.submit(fail), threads.submit(int, "7")
    with pytest.raises(KeyboardInterrupt, match="of this call"):
        failed.result()
    assert fine.result() == 7
    threads.close(wait=True)


def test_what_waits_for_a_thread_can_be_taken_back() -> None:
    threads, go = NodeThreads(1), threading.Event()
    busy, waiting = threads.submit(go.wait, 60), threads.submit(int, "7")
    assert waiting.cancel()
    assert not busy.cancel()
    go.set()
    assert busy.result()
    threads.close(wait=True)


HANGS = """
import time
from ml_platform.engine.threads import NodeThreads
threads = NodeThreads(1)
threads.submit(time.sleep, 3600)
threads.close(wait=False)
"""


@pytest.mark.slow
def test_a_call_that_does_not_end_keeps_no_process() -> None:
    assert subprocess.run([sys.executable, "-c", HANGS], check=False, timeout=120).returncode == 0
