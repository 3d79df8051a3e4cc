"""Not the cache: how its settings are spelled, in ``pod_config.json`` and in the proxy's environment."""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import Field

from llmpod.errors import ConfigError

CacheMask = Literal["item-ids", "kilo-time"]
CacheStoring = Literal["always", "deterministic", "off"]
CacheMode = Literal["normal", "record", "replay-only"]
CachePolicy = CacheStoring | dict[Annotated[str, Field(pattern=r"^(/\S+|\*)$")], CacheStoring]

ALL_MASKS: tuple[CacheMask, ...] = get_args(CacheMask)
MODES: tuple[CacheMode, ...] = get_args(CacheMode)
WEEK = 7 * 24 * 3600
LONGEST = 10**9  # seconds
_NONE, _NEVER = "none", "never"


def by_path(policy: CachePolicy) -> dict[str, CacheStoring]:
    """The policy of each path; ``*`` stands for all that are not named."""
    return {"*": policy} if isinstance(policy, str) else policy


# --- in the environment ------------------------------------------------------------------------------------
def policy_text(policy: CachePolicy) -> str:
    """As ``read_policy`` takes it."""
    return policy if isinstance(policy, str) else json.dumps(policy, sort_keys=True)


def read_policy(name: str, text: str) -> Mapping[str, str]:
    """A word, or a JSON object of them by path. Raises ConfigError."""
    words = get_args(CacheStoring)
    if text.strip() in words:
        return {"*": text.strip()}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    known = isinstance(value, dict) and all(
        word in words and (path == "*" or path.startswith("/")) for path, word in value.items()
    )
    if not known:
        raise ConfigError(
            f"{name}={text!r} is neither one of {', '.join(words)} nor a JSON object of them by path.",
            hint='Example: {"/v1/chat/completions": "deterministic"}',
            param=name,
        )
    return {str(path): str(word) for path, word in value.items()}


def masks_text(masks: tuple[str, ...]) -> str:
    """As ``read_masks`` takes it."""
    return ",".join(masks) or _NONE


def read_masks(name: str, text: str) -> tuple[str, ...]:
    """Names with commas between them, or ``none``. Raises ConfigError."""
    masks = () if text.strip() == _NONE else tuple(word.strip() for word in text.split(",") if word.strip())
    for mask in masks:
        if mask not in ALL_MASKS:
            raise ConfigError(f"{name}: {mask!r} is not one of {', '.join(ALL_MASKS)}, none.", param=name)
    return masks


def ttl_text(seconds: int | None) -> str:
    """As ``read_ttl`` takes it."""
    return _NEVER if seconds is None else str(seconds)


def read_ttl(name: str, text: str) -> float | None:
    """Seconds, or ``never``. Raises ConfigError."""
    if text.strip() == _NEVER:
        return None
    seconds = int(text) if re.fullmatch(r"\s*[0-9]{1,10}\s*", text) else 0
    if not 0 < seconds <= LONGEST:
        raise ConfigError(f"{name}={text!r} is neither 1 to {LONGEST} seconds nor {_NEVER}.", param=name)
    return float(seconds)
