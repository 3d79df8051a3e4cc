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
| `created_then_X`, `deleted_then_X`, `done_then_X` | executed, then X of the above (`…_but_X` is the same) |

Operations: create, list, get, update, delete, action, logs, catalog, billing, endpoint, limit, workers, graphql, any
of these; `hub`, the fake Hugging Face hub; `invoke`, the host that invokes serverless endpoints (a status or
`dropped`); and `model`: the next requests to a model server through the HTTP proxy get this fault as their
`x-sim-fault` header.
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
    "invoke",
    "model",
)
_PLAIN = {"1010", "dropped", "reset", "garbage", "html", "hang", "empty", "capacity", "phantom", "errors"}
_FAULT = re.compile(
    r"(?:(?:created|deleted|done)_(?:then|but)_)?(?P<kind>[a-z]+|\d+)(?:=(?P<seconds>\d+(?:\.\d+)?))?"
)


@dataclass(frozen=True)
class Fault:
    """One way to go wrong; `after` means that the call is executed first."""

    kind: str
    after: bool = False
    seconds: float = 0.0


def parse(text: str) -> Fault:
    """Raises ValueError for a word that names no fault."""
    found = _FAULT.fullmatch(text)
    kind = found["kind"] if found else ""
    is_status = kind.isdecimal() and 400 <= int(kind) <= 599
    if (
        found is None
        or (kind == "slow") != bool(found["seconds"])
        or not (is_status or kind in _PLAIN | {"slow"})
    ):
        raise ValueError(
            f"no such fault: {text}; the nearest is {_nearest(text, [*_PLAIN, 'slow=1', '500'])}"
        )
    return Fault(kind, "_" in text, float(found["seconds"] or 0))


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
            if wanted == operation or (wanted == "any" and operation not in ("hub", "invoke", "model")):
                del self._waiting[index]
                return fault
        return None

    def clear(self) -> None:
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)
