"""Not a router: what kind of right each address needs. One table; what is not in it does not exist. Pure."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from llmpod.config import Scope
from llmpod.errors import NotRouted
from llmpod.proxy.route import is_model_path


class Need(StrEnum):
    """What a caller must be allowed, where callers have keys."""

    NOTHING = "nothing"  # supervisors ask, and the answer tells nothing
    INFER = Scope.INFER
    METRICS = Scope.METRICS
    ADMIN = Scope.ADMIN


ROUTES: Final[Mapping[str, Need]] = {
    "/livez": Need.NOTHING,
    "/healthz": Need.NOTHING,
    "/readyz": Need.NOTHING,
    "/health": Need.NOTHING,  # without its details for who has no key
    "/metrics": Need.METRICS,
    "/dashboard": Need.METRICS,
    "/routes": Need.METRICS,
    "/stats": Need.METRICS,
    "/debug/cache": Need.ADMIN,
    "/admin/start": Need.ADMIN,
    "/admin/stop": Need.ADMIN,
    "/admin/restart": Need.ADMIN,
    "/admin/inflight": Need.ADMIN,
    "/admin/cancel": Need.ADMIN,
    "/admin/starts": Need.ADMIN,
}


def need(path: str) -> Need:
    """What a request to ``path`` needs. Raises NotRouted when nothing is there."""
    if is_model_path(path):
        return Need.INFER
    found = ROUTES.get(path)
    if found is None:
        raise NotRouted(
            "There is no such address here. OpenAI's API is under /v1; besides it there are "
            + ", ".join(ROUTES)
            + "."
        )
    return found
