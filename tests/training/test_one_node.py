"""Estimators in one process: what belongs to the process does not mix those that are trained at once."""

from __future__ import annotations

import threading
import warnings

from ml_platform.training.one_node import _heard


class Told(UserWarning):
    pass


def test_threads_hear_their_own_warnings_and_leave_no_filter_behind() -> None:
    """The first to begin ends first, so that what each finds is not what it must leave."""
    before, shown = list(warnings.filters), warnings.showwarning
    begun, ended = threading.Event(), threading.Event()
    heard: dict[str, list[str]] = {}

    def first() -> None:
        with _heard(Told) as caught:
            begun.set()
            second_is_in.wait()
            warnings.warn("of the first", Told, stacklevel=1)
            warnings.warn("another kind", UserWarning, stacklevel=1)
        heard["first"] = list(map(str, caught))
        ended.set()

    second_is_in = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with _heard(Told) as caught:
        second_is_in.set()
        ended.wait()
        warnings.warn("of the second", Told, stacklevel=1)
    heard["second"] = list(map(str, caught))
    thread.join()
    assert heard == {"first": ["of the first"], "second": ["of the second"]}
    assert warnings.filters == before
    assert warnings.showwarning is shown
