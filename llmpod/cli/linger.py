"""Not a daemon: lets a scheduled pass stay for a while, without the lock, and pass again when something is due.

A signal ends it anywhere, as it may end any pass: between passes it holds nothing.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import suppress

from llmpod import config
from llmpod.cli.command import Invocation
from llmpod.errors import LlmpodError, StateError
from llmpod.lifecycle.due import next_look
from llmpod.lifecycle.store import Store

SHORTEST_SECONDS = LOOK_SECONDS = 1.0
MOST_SECONDS = 3600


def arguments(parser: argparse.ArgumentParser) -> None:
    """``--for``; a pass at a terminal follows a start to its end anyway."""
    parser.add_argument(
        "--for",
        dest="stay",
        type=_seconds,
        default=0,
        metavar="SECONDS",
        help="without a terminal: stay for so long while something is due, such as a deadline, and pass then",
    )


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to {MOST_SECONDS}")
    return int(text)


def stay(call: Invocation, run: Callable[[], int]) -> int:
    """Run a pass, and others as they become due within the time of ``--for``.

    Each reads the configuration anew: one that was edited meanwhile must not be undone by the one before.

    Returns:
        The exit code of the last pass.

    Raises:
        LlmpodError: that is how the last pass ended.
    """
    end = time.monotonic() + getattr(call.options, "stay", 0)  # the bare command has no such option
    while True:
        code, failure = _attempt(run)
        if not _until_due(call, end):
            if failure is not None:
                raise failure
            return code
        if failure is not None:
            call.say(str(failure))


def _attempt(run: Callable[[], int]) -> tuple[int, LlmpodError | None]:
    try:
        return run(), None
    except LlmpodError as e:
        return e.exit_code, e


def _until_due(call: Invocation, end: float) -> bool:
    """Wait until a pass is due; False when none is before ``end``, also because another one saw to it meanwhile."""
    store = Store(config.salvage(call.config_path, call.environ).state_file)
    while time.monotonic() < end:
        seen, pause = _versions(store), _pause(store)
        if pause is None or time.monotonic() + pause > end:
            return False
        moment = time.monotonic() + pause
        while _versions(store) == seen:
            if (left := moment - time.monotonic()) <= 0:
                return True
            time.sleep(min(left, LOOK_SECONDS))
    return False


def _versions(store: Store) -> list[int]:
    """Which state and orders these are: each writing makes a new file."""
    found = []
    for path in (store.state_file, store.directory / "orders.json"):
        with suppress(FileNotFoundError):
            found.append(path.stat().st_mtime_ns)
    return found


def _pause(store: Store) -> float | None:
    """Seconds until a pass is due; None: nothing is, or nobody can tell."""
    try:
        state = store.load()
        now = time.time() + state.clock_offset
        moment = next_look(state, store.orders(), now)
    except StateError:
        return None
    return None if moment is None else max(SHORTEST_SECONDS, moment - now)
