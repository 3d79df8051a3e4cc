"""Not a socket: which faults one direction of a connection has, and what they make of the bytes that pass. Pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

_FLIPPED = 0x55
_SECONDS = ("delay", "drip", "rate")  # and bytes a second: these need not be whole


class BadPlan(ValueError):
    """No plan of faults; the message says why."""


class End(StrEnum):
    """What becomes of a connection at a certain byte."""

    RESET = "reset"  # both sides see RST
    CLOSE = "close"  # the receiving side sees an orderly end; the other direction goes on
    HOLE = "hole"  # nothing passes any more, no end either, as behind a cable that was pulled


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of one direction. With none of them everything passes as it comes.

    Args:
        delay: seconds before anything passes.
        rate: bytes a second; 0: any number.
        drip: seconds between single bytes; 0: they pass in the pieces they come in.
        corrupt: the byte (counted from 0) whose bits are changed; -1: none.
        reset: after so many bytes both sides see RST; -1: never.
        close: after so many bytes the receiver sees the end; -1: never.
        hole: after so many bytes nothing passes any more; -1: never.
    """

    delay: float = 0.0
    rate: float = 0.0
    drip: float = 0.0
    corrupt: int = -1
    reset: int = -1
    close: int = -1
    hole: int = -1

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Plan":
        """A plan from names and numbers. Raises BadPlan."""
        names = [item.name for item in fields(cls)]
        for name, value in given.items():
            if name not in names:
                raise BadPlan(f"{name!r} is no fault; there are {', '.join(names)}")
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (name not in _SECONDS and value != int(value)):
                raise BadPlan(f"{name} takes a number that is not negative, not {value!r}")
        return cls(**{name: value if name in _SECONDS else int(value) for name, value in given.items()})

    @classmethod
    def parse(cls, text: str) -> "Plan":
        """A plan written as ``delay=0.5,reset=100``. Raises BadPlan."""
        given: dict[str, float] = {}
        for word in filter(None, text.split(",")):
            name, _, number = word.partition("=")
            try:
                given[name.strip()] = float(number)
            except ValueError:
                raise BadPlan(f"{word!r} is not NAME=NUMBER") from None
        return cls.of(given)

    @property
    def end(self) -> tuple[End, int] | None:
        """What happens first, and at which byte."""
        ends = [(End.RESET, self.reset), (End.CLOSE, self.close), (End.HOLE, self.hole)]
        return min((item for item in ends if item[1] >= 0), key=lambda item: item[1], default=None)


class Course:
    """How far one direction has got."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.passed = 0

    def pieces(self, data: bytes) -> Iterator[tuple[float, bytes]]:
        """What passes of the bytes that came: (seconds to wait before, bytes) in turn; less where the end is near."""
        plan, end = self.plan, self.plan.end
        room = len(data) if end is None else max(0, min(len(data), end[1] - self.passed))
        kept = self._corrupted(data[:room])
        size = 1 if plan.drip else len(kept)
        for at in range(0, len(kept), size or 1):
            piece = kept[at : at + size]
            wait = plan.drip + (plan.delay if not self.passed else 0.0)
            self.passed += len(piece)
            yield wait + (len(piece) / plan.rate if plan.rate else 0.0), piece

    @property
    def over(self) -> End | None:
        """The end that has come, if one has."""
        end = self.plan.end
        return end[0] if end is not None and self.passed >= end[1] else None

    def _corrupted(self, data: bytes) -> bytes:
        at = self.plan.corrupt - self.passed
        if not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] ^ _FLIPPED]) + data[at + 1 :]
