"""Not the settings: the private file in which the manager hands them to the proxy, as variables and their texts."""

import hashlib
import json
from pathlib import Path

from llmpod.config.credentials import read_private
from llmpod.errors import BadCredentials, ConfigError

SETTINGS_VARIABLE = "LLMPOD_SETTINGS"
MAX_CHARS = 2**20


def settings_digest(text: str) -> str:
    """Names the text of a file: which settings a proxy has."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def read_settings(path: Path) -> tuple[dict[str, str], str]:
    """The variables in the file, and its digest.

    Raises:
        ConfigError: unreadable, open to others, half-written, or not an object of texts.
    """
    try:
        text = read_private(path)
        values = json.loads(text[:MAX_CHARS])
    except BadCredentials as e:
        raise ConfigError(e.message, hint=e.hint) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path} is damaged or only half written.") from None
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise ConfigError(f"{path} is not an object of variables and their texts.")
    return values, settings_digest(text)
