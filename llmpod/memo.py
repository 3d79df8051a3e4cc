"""Not a cache of answers: what small pure functions returned, for short texts only.

What strangers send chooses the arguments, and ``lru_cache`` bounds only their number: a thousand paths of 8 KiB in
each of ten tables were 90 MiB for ever (measured). A long text is looked at each time; real clients send short ones.
"""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Final, TypeVar

LONGEST: Final = 256
Text = TypeVar("Text", bytes, str)
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[[Text], T]], Callable[[Text], T]]:
    """Remember what a pure function of one text returns.

    Args:
        most: how many texts.
    """

    def decorate(function: Callable[[Text], T]) -> Callable[[Text], T]:
        known = lru_cache(most)(function)

        @wraps(function)
        def ask(text: Text) -> T:
            return known(text) if len(text) <= LONGEST else function(text)

        return ask

    return decorate
