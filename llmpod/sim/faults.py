"""Not a model's faults (see vllm/faults.py): how one API call can go wrong, queued by operation.

| fault | what happens |
|---|---|
| a status, `402` | that answer, the call is not executed; `429` with Retry-After |
| `1010` | Cloudflare's 403 for an agent it dislikes |
| `dropped`, `reset` | the connection is cut, the call is not executed |
| `garbage`, `html` | a body that is no JSON, a gateway's page; not executed |
| `slow=S`, `hang` | executed and answered after S seconds; neither executed nor answered |
| `empty` | LIST: no pods, by mistake |
| `errors` | graphql: status 200 and a list of errors |
| `capacity` | create: no instances |
| `phantom` | create: 201 for a pod that never exists |
| `cut=N`, `stall=N` | cdn: reset, or silence without an end, after N bytes of the body |
| `wrong`, `whole` | cdn: bytes that are not the file's; the whole file, whatever range was asked for |
| `created_then_X`, `deleted_then_X`, `done_then_X` | executed, then X of the above (`…_but_X` is the same) |

Operations: create, list, get, update, delete, action, logs, catalog, billing, endpoint, limit, workers, graphql, any
of these; `hub`, the fake Hugging Face hub, and `cdn`, where it keeps large files; `invoke`, the host that invokes
serverless endpoints (a status or `dropped`); and `model`: the next requests to a model server through the HTTP proxy
get this fault as their `x-sim-fault` header.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

OPERATIONS = (
    "create",
    "list",
    "get",
    "update",
    "delete",
    "action",
    "logs",
    "catalog",
    "billing",
    "endpoint",
    "limit",
    "workers",
    "graphql",
    "any",
    "hub",
    "cdn",
    "invoke",
    "model",
)
_ASIDE = ("hub", "cdn", "invoke", "model")  # what "any" call of the API is not
_PLAIN = {"1010", "dropped", "reset", "garbage", "html", "hang", "empty", "capacity", "phantom", "errors"}
_PLAIN |= {"wrong", "whole"}
_NUMBERED = {"slow", "cut", "stall"}
_FAULT = re.compile(
    r"(?:(?:created|deleted|done)_(?:then|but)_)?(?P<kind>[a-z]+|\d+)(?:=(?P<number>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One way to go wrong; `after` means that the call is executed first; `number`: of seconds or bytes."""

    kind: str
    after: bool = False
    number: float = 0.0


def parse(text: str) -> Fault:
    """Raises ValueError for a word that names no fault."""
    found = _FAULT.fullmatch(text)
    kind = found["kind"] if found else ""
    is_status = kind.isdecimal() and 400 <= int(kind) <= 599
    if (
        found is None
        or (kind in _NUMBERED) != bool(found["number"])
        or not (is_status or kind in _PLAIN | _NUMBERED)
    ):
        raise ValueError(
            f"no such fault: {text}; the nearest is {_nearest(text, [*_PLAIN, 'slow=1', '500'])}"
        )
    return Fault(kind, "_" in text, float(found["number"] or 0))


def _nearest(word: str, known: Sequence[str]) -> str:
    return difflib.get_close_matches(word, known, n=1, cutoff=0)[0]


class FaultQueue:
    """Faults that wait for their calls, first in, first out."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, str]] = []

    def add(self, operation: str, fault: str, times: int) -> None:
        """For the next `times` calls of that operation. Raises ValueError for an unknown operation or fault."""
        if operation not in OPERATIONS:
            raise ValueError(
                f"no such operation: {operation}; the nearest is {_nearest(operation, OPERATIONS)}"
            )
        if operation != "model":
            parse(fault)
        self._waiting += [(operation, fault)] * times

    def take(self, operation: str) -> str | None:
        """The fault for this call, if one waits; it is used up."""
        for index, (wanted, fault) in enumerate(self._waiting):
            if wanted == operation or (wanted == "any" and operation not in _ASIDE):
                del self._waiting[index]
                return fault
        return None

    def clear(self) -> None:
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)
