"""What crosses to ranks and back, and what the error says when it cannot."""

from __future__ import annotations

import threading

import pytest

from ml_platform.errors import RankError, SpecError
from ml_platform.worker.payload import LIMIT_BYTES, pack_job, pack_result, unpack_job, unpack_result


def add(rank: object, a: int, b: int) -> int:
    return a + b


def test_function_and_arguments_arrive() -> None:
    function, args = unpack_job(pack_job(add, (1, 2)))
    assert function(None, *args) == 3


def test_closure_arrives_by_value() -> None:
    bonus = 40
    function, args = unpack_job(pack_job(lambda rank, a: a + bonus, (2,)))
    assert function(None, *args) == 42


def test_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(SpecError, match=r"argument 2 \(lock\) cannot be pickled"):
        pack_job(add, (1, threading.Lock()))


def test_closure_variable_that_cannot_be_pickled_is_named() -> None:
    guard = threading.Lock()
    with pytest.raises(SpecError, match="closure variable 'guard' cannot be pickled"):
        pack_job(lambda rank: guard.acquire(), ())


def test_too_large_a_payload_names_the_largest_part() -> None:
    with pytest.raises(SpecError, match="too large to be sent to ranks") as caught:
        pack_job(add, (1, b"x" * LIMIT_BYTES))
    assert caught.value.got == "64.0 MiB; the largest part is argument 2 (bytes) with 64.0 MiB"
    assert caught.value.wanted == "at most 64.0 MiB with its arguments"


def test_result_that_cannot_be_pickled() -> None:
    with pytest.raises(RankError, match=r"tests\.f returned a value that cannot be pickled") as caught:
        pack_result((number for number in range(3)), name="tests.f")
    assert "generator" in (caught.value.got or "")


def test_result_crosses() -> None:
    assert unpack_result(pack_result({"a": 1}, name="f"), name="f") == {"a": 1}


def test_module_that_is_missing_on_the_rank() -> None:
    with pytest.raises(RankError, match="the rank cannot import what it was sent") as caught:
        unpack_job(b"cno_such_module\nf\n.")
    assert "no_such_module" in (caught.value.got or "")
