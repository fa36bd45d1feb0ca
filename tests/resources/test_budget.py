"""One budget: all or nothing, shared resources once, and numbers when it can never fit."""

import threading

import pytest

from ml_platform.errors import ResourceStartError
from ml_platform.resources.budget import Budget, Need
from ml_platform.specs.placements import BudgetSpec

SPARK = Need(name="spark", cores=2, memory_mib=1000)
GANG = Need(name="gang", cores=2, memory_mib=1000, exclusive=True)
TRACKING = Need(name="tracking")


def budget(cores: int) -> Budget:
    return Budget(BudgetSpec(cores=cores, memory_mib=4000))


def test_users_of_one_resource_share_it() -> None:
    small = budget(2)
    assert small.try_admit([SPARK])
    assert small.try_admit([SPARK, TRACKING])


def test_what_does_not_fit_beside_others_waits() -> None:
    small = budget(3)
    assert small.try_admit([SPARK])
    assert not small.try_admit([GANG])
    small.release([SPARK])
    assert small.try_admit([GANG])


def test_nothing_is_taken_by_a_refusal() -> None:
    small = budget(2)
    assert not small.try_admit([SPARK, GANG])
    assert small.try_admit([GANG])


def test_an_exclusive_resource_has_one_user() -> None:
    large = budget(8)
    assert large.try_admit([GANG])
    assert not large.try_admit([GANG])


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ResourceStartError) as caught:
        budget(1).check([GANG], task="train_keras")
    assert caught.value.wanted == "2 cores, 1000 MiB"
    assert caught.value.got == "a budget of 1 cores, 4000 MiB"


def test_a_waiting_user_is_admitted_when_room_is_given_back() -> None:
    small = budget(2)
    assert small.try_admit([SPARK])
    entered = threading.Event()

    def work() -> None:
        with small.admitted([GANG]):
            entered.set()

    worker = threading.Thread(target=work)
    worker.start()
    assert not entered.is_set()
    small.release([SPARK])
    worker.join(timeout=10)
    assert entered.is_set()
    assert small.try_admit([SPARK]), "what was admitted was given back"
