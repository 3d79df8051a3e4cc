"""Waiting until something is true, with a deadline. The only place in the tests that may sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    predicate: Callable[[], T],
    *,
    within: float = 5.0,
    every: float = 0.02,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Calls `predicate` until its value is true, and returns that value.

    `within` and `every` are seconds. An exception of a type in `ignoring` counts as "not yet".
    Raises AssertionError, with the last value or exception, when the time is over.
    """
    deadline = time.monotonic() + within
    while True:
        seen: object
        try:
            if value := predicate():
                return value
            seen = value
        except ignoring as error:
            seen = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not true within {within} s; last seen: {seen!r}")
        time.sleep(every)
