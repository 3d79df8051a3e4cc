"""Not exceptions of ours: the API's error answers (RFC 9457), with the sentences RunPod was recorded to say."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

_NONE_LEFT = "There are no longer any instances available with"
NO_INSTANCES = f"{_NONE_LEFT} the requested specifications. Please refresh and try again."
NO_DISK = f"{_NONE_LEFT} enough disk space."
NO_MONEY = "Your account balance is too low to rent a pod. Please add funds to your account."
NOT_RESUMED = "Failed to resume pod."
NO_PATH = "The requested path was not found."
NO_POD = "pod not found"
NO_METHOD = "The requested method is not allowed for this path."
NO_RIGHT = "access denied"
INVALID = "Request validation failed."


@dataclass
class Problem(Exception):
    """An answer of `application/problem+json`."""

    status: int
    detail: str
    errors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        title = "Unprocessable Entity" if self.status == 422 else HTTPStatus(self.status).phrase
        problem: dict[str, Any] = {"title": title, "status": self.status, "detail": self.detail}
        if self.errors:
            problem["errors"] = list(self.errors)
        return problem


def invalid(*errors: str) -> Problem:
    """422 with the list of what is wrong."""
    return Problem(422, INVALID, errors)
