"""Decorators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def doubled(function: Callable[[int], int]) -> Callable[[int], int]:
    def run(n: int) -> int:
        return 2 * function(n)

    return run


def scaled(*, by: int) -> Callable[[Callable[[int], int]], Callable[[int], int]]:
    def decorate(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def run(n: int) -> int:
            return by * function(n)

        return run

    return decorate


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return f"<{function(*args, **kwargs)}>"

    return run
