"""Not a router: what kind of right each address needs. What is in no table here does not exist. Pure."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from llmpod.config import Scope
from llmpod.errors import NotRouted
from llmpod.proxy.route import is_model_path, without_name


class Need(StrEnum):
    """What a caller must be allowed, where callers have keys."""

    NOTHING = "nothing"  # supervisors ask, and the answer tells nothing
    INFER = Scope.INFER
    METRICS = Scope.METRICS
    ADMIN = Scope.ADMIN


ROUTES: Final[Mapping[str, Need]] = {
    "/": Need.NOTHING,  # shows a browser the way to the page
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
# A model server's addresses, by method. All others change or delete what is there, by the owner's authority.
MODEL_ROUTES: Final[Mapping[str, Need]] = dict.fromkeys(("GET", "HEAD", "POST"), Need.INFER)
# What a POST below /v1 does to the server instead of asking it: vLLM's adapters, which everybody is then answered by;
# models, adapters and templates of TabbyAPI, Aphrodite and text-generation-webui. vLLM's other commands (/sleep,
# /wake_up, /collective_rpc, /reset_prefix_cache, /update_weights …) are not below /v1, so they are not there at all.
COMMANDS: Final = re.compile(
    r"/v1/(?:(?:un)?load_lora_adapter$|download$|(?:model|lora|template|sampling|internal)/)"
)


def need(method: str, path: str) -> Need:
    """What a request needs.

    Args:
        method: upper case.
        path: as received, without query.

    Raises:
        NotRouted: nothing is there.
    """
    if is_model_path(path):
        if method == "POST" and COMMANDS.match(without_name(path)):
            return Need.ADMIN
        return MODEL_ROUTES.get(method, Need.ADMIN)
    found = ROUTES.get(path)
    if found is None:
        raise nowhere()
    return found


def nowhere() -> NotRouted:
    """What is told to who asks for an address that does not exist, or for none."""
    others = ", ".join(path for path in ROUTES if path != "/")
    return NotRouted(
        f"There is no such address here. OpenAI's API is under /v1; besides it there are {others}."
    )
