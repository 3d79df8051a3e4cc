"""Not the run: its end. Everything is ordered down and seen gone, or, where it never got going, what it began."""

from collections.abc import Collection
from contextlib import suppress

from rich.console import Console

from llmpod.cli.endings import Endings, Stop, Teller
from llmpod.cli.follow import Follower
from llmpod.cli.switch import await_end
from llmpod.cli.wiring import Plane
from llmpod.errors import LlmpodError
from llmpod.lifecycle.nouns import thing_of
from llmpod.model import Direction

END_SECONDS = 300.0


def end_all(plane: Plane, console: Console, *, endings: Endings, verbose: bool) -> None:
    """Order everything down and see it gone, whatever happens to the terminal meanwhile.

    The order is durable before a signal or a closed terminal can interrupt; after that a second Ctrl-C leaves
    the rest to the next pass, loudly.
    """
    forced = plane.order(Direction.DOWN, by="run", reason="`run` was ended", proxy=True)
    say = Teller(console)
    say(f"\nstopping: terminating the {thing_of(plane.config.common.backend)} and the proxy …")
    endings.arm()
    gone = False
    with suppress(Stop, LlmpodError):
        follower = Follower(plane, Console(quiet=not verbose), verbose=verbose)
        gone = follower.until_gone(limit_seconds=END_SECONDS, forced=forced)
    endings.disarm()
    if gone:
        say("nothing is left running")
        return
    _warn(plane, say)


def end_own(
    plane: Plane, console: Console, *, endings: Endings, begun: Collection[str], before: Collection[str]
) -> None:
    """After a start that failed: end what it began. What ran before goes on, and the proxy with it."""
    unwritten = plane.order(
        Direction.DOWN, by="run", reason="`run` did not get ready", proxy=False, models=begun
    )
    say = Teller(console)
    say(f"\nstopping what this run began; {', '.join(before)} ran before and goes on, and so does the proxy")
    endings.arm()
    gone = False
    with suppress(Stop, LlmpodError):
        await_end(plane, begun, END_SECONDS)
        gone = not unwritten
    endings.disarm()
    if not gone:
        _warn(plane, say)


def _warn(plane: Plane, say: Teller) -> None:
    thing = thing_of(plane.config.common.backend)
    costs = " and cost money" if plane.config.common.is_billed else ""
    say(f"A {thing} may still exist{costs}. Run `python3 manage_pod.py --shutdown` until nothing is left.")
