"""Not the settings: how one environment variable's text becomes a value; ConfigError names the variable."""

from collections.abc import Callable

from llmpod.errors import ConfigError

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def flag(name: str, text: str) -> bool:
    """A switch."""
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ConfigError(f"{name}={text!r} is neither true nor false.", hint="Write true or false.", param=name)


def count(low: int, high: int) -> Callable[[str, str], int]:
    """Reads a whole number between two bounds, both included."""

    def read(name: str, text: str) -> int:
        try:
            value = int(text.strip())
        except ValueError:
            raise ConfigError(f"{name}={text!r} is not a whole number.", param=name) from None
        if not low <= value <= high:
            raise ConfigError(f"{name}={value} is outside {low}…{high}.", param=name)
        return value

    return read


def choice(*words: str) -> Callable[[str, str], str]:
    """Reads one of some words."""

    def read(name: str, text: str) -> str:
        if (word := text.strip()) not in words:
            raise ConfigError(f"{name}={text!r} is not one of {', '.join(words)}.", param=name)
        return word

    return read


def seconds(name: str, text: str) -> float:
    """A positive time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise ConfigError(f"{name}={text!r} is not a number of seconds.", param=name)
    return value


def amount(name: str, text: str) -> float:
    """An amount in USD."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e3:
        raise ConfigError(f"{name}={text!r} is not an amount in USD.", param=name)
    return value


def none_or_seconds(name: str, text: str) -> float:
    """A time; 0 for none."""
    return 0.0 if text.strip() in ("0", "0.0") else seconds(name, text)


def words(text: str) -> tuple[str, ...]:
    """Words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
