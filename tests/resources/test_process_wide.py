"""What belongs to the whole process is kept apart for its threads, and left as it was."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ml_platform.resources.process_wide import heard, while_anyone


class Told(UserWarning):
    pass


def test_threads_hear_their_own_warnings_and_leave_no_filter_behind() -> None:
    """The first to begin ends first, so that what each finds is not what it must leave."""
    before, shown = list(warnings.filters), warnings.showwarning
    begun, ended = threading.Event(), threading.Event()
    found: dict[str, list[str]] = {}

    def first() -> None:
        with heard(Told) as caught:
            begun.set()
            second_is_in.wait()
            warnings.warn("of the first", Told, stacklevel=1)
            warnings.warn("another kind", UserWarning, stacklevel=1)
        found["first"] = list(map(str, caught))
        ended.set()

    second_is_in = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with heard(Told) as caught:
        second_is_in.set()
        ended.wait()
        warnings.warn("of the second", Told, stacklevel=1)
    found["second"] = list(map(str, caught))
    thread.join()
    assert found == {"first": ["of the first"], "second": ["of the second"]}
    assert warnings.filters == before
    assert warnings.showwarning is shown


def test_a_block_inside_another_hears_for_itself() -> None:
    with heard(Told) as outer:
        with heard():
            warnings.warn("kept from all", Told, stacklevel=1)
        warnings.warn("told", Told, stacklevel=1)
    assert list(map(str, outer)) == ["told"]


def test_the_first_sets_and_the_last_takes_back() -> None:
    """Whoever comes second and leaves last must not leave behind what it found."""
    happened: list[str] = []

    @contextmanager
    def setting() -> Iterator[None]:
        happened.append("set")
        yield
        happened.append("taken back")

    with ExitStack() as first, ExitStack() as second:
        first.enter_context(while_anyone("a setting", setting))
        second.enter_context(while_anyone("a setting", setting))
        first.close()
        assert happened == ["set"]
        second.close()
    with while_anyone("a setting", setting):
        pass
    assert happened == ["set", "taken back"] * 2
