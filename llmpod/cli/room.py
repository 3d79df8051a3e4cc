"""Not a run (ondemand.py): the private directory of one, who has it, and how what runs in it is ended.

Whoever holds the room's lock may act in it: the run itself, and, when that was killed, its heir (heir.py) or the next
run on the same port, whichever comes first.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from rich.console import Console

from llmpod import config as configuration
from llmpod.backends import Hasty
from llmpod.cli.endings import Stop, Teller
from llmpod.cli.follow import LOCK_SECONDS, Follower
from llmpod.cli.wiring import Plane, open_plane
from llmpod.config import Config
from llmpod.errors import Busy, ConfigError, LlmpodError, PortTaken
from llmpod.lifecycle import files
from llmpod.lifecycle.lastwords import LastWords
from llmpod.model import Direction
from llmpod.veil import Veil

GONE_SECONDS: Final = 60.0
HURRIED_SECONDS: Final = 20.0
_OF_ANY_PORT: Final = re.compile(r"on-demand-p\d+")
_HANDOVER_SECONDS: Final = 2.0  # a killed process's lock may outlast its pipes by a moment
_ENDING: Final = "ending"  # in a room: who holds it ends what a killed run left


@contextmanager
def room(home: Path, number: int, console: Console) -> Iterator[Path]:
    """The directory of the run on a port, this run's alone and gone afterwards if nothing is left that runs.

    Args:
        home: the program's directory.
        number: the port; 0: any, and the room is one of its own.
        console: told when what a killed run left is still being ended.

    Raises:
        PortTaken: another run has this port.
        Busy: what a killed run on this port left is still being ended.
    """
    above = files.private_dir(home / ".llmpod")
    path = above / f"on-demand-{number or f'p{os.getpid()}'}"
    with _held(lock_of(path), path / _ENDING, number, console):
        yield path


def lock_of(path: Path) -> Path:
    """The lock of a room; a file beside it, which goes with its last holder."""
    return path.with_name(f"{path.name}.lock")


def end(
    config: Config, environ: Mapping[str, str], console: Console, *, armed: Callable[[], None] | None = None
) -> bool:
    """Order the model of a room down, see it gone and remove the room; whatever fails is said, for it may still run.

    Args:
        config: the room's.
        environ: the environment.
        console: where that is said.
        armed: called once its end is ordered; from then on :class:`Stop` takes away its time to end by itself.

    Returns:
        False when its end could not be seen: the room stays, for the next run on this port.
    """
    key = configuration.provider_key(config.backends, environ)
    try:
        with open_plane(config, key, environ=environ, with_proxy=False) as plane:
            gone = _gone(plane, console, armed)
    except LlmpodError as e:
        console.print(f"The model server may still run: {e}", highlight=False, markup=False)
        return False
    if not gone:
        console.print(
            f"The model server may still run; its files are in {config.path.parent}.", highlight=False
        )
        return False
    _keep_failure(config, console)
    shutil.rmtree(config.path.parent, ignore_errors=True)
    return True


def _keep_failure(config: Config, console: Console) -> None:
    """What the last start that failed said outlives the room; a run without one takes away what was kept."""
    room = config.path.parent
    kept = room.with_name(f"{'on-demand-0' if _OF_ANY_PORT.fullmatch(room.name) else room.name}.log")
    try:
        LastWords.of(config.directory, Veil()).path.replace(kept)
    except OSError:
        kept.unlink(missing_ok=True)
        return
    console.print(f"the last lines of a start that failed are in {kept}", highlight=False, markup=False)


def end_leftovers(path: Path, environ: Mapping[str, str], console: Console) -> None:
    """End what a killed run left; it is known by that run's own directory.

    Raises:
        Busy: that cannot be done now; another one beside it would be one too many.
        ConfigError: the environment does not let it be read; what runs would be forgotten with the room.
    """
    file = path / "pod_config.json"
    if not file.exists():  # it was killed before it could start anything
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        left = configuration.load(file, environ)
    except ConfigError:  # another version of this program wrote it
        left = configuration.salvage(file, environ)
    if not end(left, environ, console):
        raise Busy("What an earlier run on this port left could not be ended.", hint="Try again in a moment.")


def inherit(lock: Path, config: Path, environ: Mapping[str, str]) -> None:
    """End what a killed run left, unless somebody else has its room already. Nobody is there to be told.

    Args:
        lock: of its room.
        config: its configuration.
        environ: the environment.
    """
    with suppress(LlmpodError), files.locked(lock, wait_seconds=_HANDOVER_SECONDS, fleeting=True):
        left = configuration.load(config, environ)
        (left.path.parent / _ENDING).touch(mode=0o600)
        end(left, environ, Console(quiet=True))


@contextmanager
def _held(lock: Path, ending: Path, number: int, console: Console) -> Iterator[None]:
    """The lock; who ends what a killed run left is waited for."""
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(lock, wait_seconds=_HANDOVER_SECONDS, fleeting=True))
        except Busy:
            if not ending.exists():
                hint = "Choose another --port."
                raise PortTaken(f"Another one runs on port {number} already.", hint=hint) from None
            console.print("what a killed run on this port left is being ended …", highlight=False)
            stack.enter_context(files.locked(lock, wait_seconds=GONE_SECONDS, fleeting=True))
        yield


def _gone(plane: Plane, console: Console, armed: Callable[[], None] | None) -> bool:
    forced = plane.order(Direction.DOWN, by="on demand", reason="the proxy was ended", proxy=False)
    follower = Follower(plane, Console(quiet=True))
    try:
        if armed is not None:
            armed()
        return follower.until_gone(limit_seconds=GONE_SECONDS, forced=forced)
    except Stop:
        Teller(console)("ending it at once …")
        plane.run_pass(wait_seconds=LOCK_SECONDS, forced=forced)  # its end may not have been ordered yet
        if isinstance(plane.backend, Hasty):
            plane.backend.hurry()
        return follower.until_gone(limit_seconds=HURRIED_SECONDS, forced=forced)
