"""Not the manager: it starts nothing. It follows the state file and tells the manager, in a file, what was used.

The state file is looked at by its time, size and inode on a short interval; a change is read in a thread. An
unreadable file changes nothing here: the last known truth stays (F45).
"""

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from llmpod.config import ProxySettings
from llmpod.errors import ModelNotReady, StateError
from llmpod.lifecycle.share import Follower, Target, UsageWriter
from llmpod.model import Phase, Today, Usage
from llmpod.observe import Log
from llmpod.observe.logs import iso
from llmpod.proxy.route import Destination, fixed, followed

LOOK_SECONDS: Final = 0.25
WRITE_SECONDS: Final = 1.0
SIGN_OF_LIFE_SECONDS: Final = 30.0  # else the manager takes the proxy for dead, and what it counts for over
_STARTING: Final = {
    Phase.INTENT: "A machine is being ordered",
    Phase.UNKNOWN: "A machine was ordered and is being looked for",
    Phase.CREATED: "The machine is being set up",
    Phase.BOOTING: "The machine is up and its server is starting",
    Phase.LOADING: "The server is loading the model",
}


def _nothing() -> None:
    """Nobody waits for it."""


@dataclass(slots=True)
class Use:
    """What the proxy saw of one model since it started."""

    in_flight: int = 0
    requests: int = 0
    last_byte: float | None = None
    wake_wanted: float | None = None
    rest_wanted: float | None = None
    rest_reason: str = ""
    let_go: str = ""
    when_free: Callable[[], object] = _nothing
    when_lost: Callable[[], object] = _nothing

    def begin(self) -> None:
        """A request is sent to the model."""
        self.in_flight += 1
        self.requests += 1

    def end(self) -> None:
        """Its answer is over, however it ended."""
        self.in_flight -= 1
        if not self.in_flight:
            self.when_free()

    def lost(self) -> None:
        """Its server could not be reached, or broke off."""
        self.when_lost()

    def frozen(self) -> Usage:
        return Usage(
            self.last_byte,
            self.in_flight,
            self.wake_wanted,
            self.requests,
            self.rest_wanted,
            self.let_go,
            rest_reason=self.rest_reason,
        )


class Keeper:
    """Knows where each model answers now, and counts its use.

    Args:
        settings: a fixed endpoint, or the state file to follow.
        log: told of changes.
        changed: called when a model server came, went or changed its phase.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: ProxySettings,
        log: Log,
        *,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._log = log
        self._changed = changed
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._complaint = ""
        self.trouble = ""
        """Why the manager's passes fail, and since when; empty while they do not."""
        self._use: dict[str, Use] = {}
        self._written: dict[str, Usage] = {}
        self._written_at = 0.0
        self._pen, self._looking = asyncio.Lock(), asyncio.Lock()
        self._observers: list[Callable[[], None]] = []
        self.today: Today | None = None
        """What was spent today, and what may be; None without a budget."""
        self._task: asyncio.Task[None] | None = None
        self._targets: Mapping[str, Target] = {}
        self.when_let_go: Callable[[], object] = _nothing
        """Called when it was written down that a machine gets nothing more."""
        self.destinations: tuple[Destination, ...] = self._seen_with({})

    @property
    def follows(self) -> bool:
        return self._settings.endpoint is None and self._settings.state_file is not None

    def adopt(self, settings: ProxySettings) -> None:
        """Other settings from now on, for the models that are known as well as for the state, which is read anew."""
        self._settings = settings
        self._stamp = None
        self._show(self._seen_with(self._targets))

    def _seen_with(self, targets: Mapping[str, Target]) -> tuple[Destination, ...]:
        settings = self._settings
        return (fixed(settings),) if settings.endpoint else followed(targets, settings)

    async def start(self) -> None:
        """Read the state once, then go on in the background."""
        if self.follows:
            await self.look()
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop following; the last use is written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self.write()

    def on_change(self, observer: Callable[[], None]) -> None:
        """Have somebody told when a model server came, went or changed its phase."""
        self._observers.append(observer)

    def by_key(self, model_key: str) -> Destination | None:
        """The model under whose name usage is counted."""
        return next((d for d in self.destinations if d.model_key == model_key), None)

    def wish(self, model_key: str, *, wake: bool, why: str = "") -> None:
        """Note that a model should start, or stop and why; each wish has a time of its own, later than the last."""
        use = self.use(model_key)
        last = max(use.wake_wanted or 0.0, use.rest_wanted or 0.0)
        at = max(self._clock(), math.nextafter(last, math.inf))
        if wake:
            use.wake_wanted = at
        else:
            use.rest_wanted, use.rest_reason = at, why

    def use(self, model_key: str) -> Use:
        """The counters of one model; the caller changes them."""
        return self._use.setdefault(model_key, Use())

    def not_ready(self, destination: Destination, *, wished: bool = True) -> ModelNotReady:
        """Why nothing can answer now and what to do; notes that somebody wished for the model, if so."""
        if wished:
            self.wish(destination.model_key, wake=True)
        name = destination.names[0] if destination.names else destination.identity
        if (doing := _STARTING.get(destination.phase or Phase.STOPPED)) is not None:
            return ModelNotReady(f"{doing} for {name}.", hint="Try again in a moment.", retry_after=10)
        if destination.outdated:
            why = f"{name} is being started anew, for its configuration has changed."
            return ModelNotReady(why, retry_after=30)
        if destination.phase is Phase.TERMINATING:
            return ModelNotReady(f"The machine for {name} is being shut down.", retry_after=30)
        why = f" ({destination.error})" if destination.error else ""
        return ModelNotReady(
            f"No machine runs for {name}{why}.", hint="Start it: python3 manage_pod.py up", retry_after=30
        )

    async def _run(self) -> None:
        written = self._clock()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()
            if self._let_go() and await self.write(durable=True):
                self.when_let_go()
            if self._clock() - written >= WRITE_SECONDS:
                written = self._clock()
                await self.write()

    async def look(self) -> None:
        """Read the state if it has changed; one after the other, so that nothing older takes a newer one's place."""
        async with self._looking:
            await self._read()

    async def _read(self) -> None:
        path = self._settings.state_file
        assert path is not None
        try:
            stat = os.stat(path)  # noqa: PTH116 - one syscall on a local file, four times a second
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return
        try:
            seen = await asyncio.to_thread(lambda: Follower(path).read())
            destinations = self._seen_with(seen.targets)
        except (StateError, ValueError) as e:  # ValueError: an address that is none
            self._complain(str(e))
            return
        self._stamp = stamp
        self._complaint = ""
        self.trouble = f"{seen.trouble.text} (since {iso(seen.trouble.since)})" if seen.trouble else ""
        self.today = seen.today
        self._log.veil.learn(*(target.api_key for target in seen.targets.values()))
        self._targets = seen.targets
        await self._sign(destinations)
        self._show(destinations)

    async def _sign(self, destinations: Iterable[Destination]) -> None:
        """Before anything is sent to a model, its use stands in the file: who is not there is taken for nobody, and
        what was let go may be ended.
        """
        unsigned = {d.model_key for d in destinations} - self._written.keys()
        unsigned |= {
            d.model_key for d in destinations if d.origin is not None and self.use(d.model_key).let_go
        }
        for model_key in unsigned:
            self.use(model_key).let_go = ""
        if unsigned:
            await self.write()

    def _show(self, destinations: tuple[Destination, ...]) -> None:
        """Send requests there from now on, and tell who wants to know."""
        before, self.destinations = self.destinations, destinations
        if before == destinations:
            return
        self._changed()
        for observer in self._observers:
            observer()
        for d in destinations:
            self._log.info("target", model=d.identity, phase=d.phase, origin=d.origin)

    def _let_go(self) -> bool:
        """Note which machines get nothing more and have nothing in flight; whether there is a new one.

        Those of models that were removed, and of such that are to be replaced: no request finds them any more.
        """
        before = {use.let_go for use in self._use.values()}
        there = {d.model_key for d in self.destinations}
        for name in self._use.keys() - self._targets.keys() - there:
            if not self._use[name].in_flight:
                del self._use[name]
        for name in there | self._targets.keys():
            use, target = self.use(name), self._targets.get(name)
            due = target is not None and (target.outdated or name not in there)
            use.let_go = target.name if target is not None and due and not use.in_flight else ""
        return not {use.let_go for use in self._use.values()} <= before | {""}

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self._log.warning("state_unreadable", reason=text)

    async def write(self, *, durable: bool = False) -> bool:
        """Tell the manager what was used and what is wished; whether it stands in the file."""
        async with self._pen:  # what is written last must be what is true last
            return await self._write(durable=durable)

    async def _write(self, *, durable: bool) -> bool:
        usage = {key: use.frozen() for key, use in self._use.items()}
        path, now = self._settings.state_file, self._clock()
        still_true = abs(now - self._written_at) < SIGN_OF_LIFE_SECONDS
        if path is None or (usage == self._written and still_true and not durable):
            return path is not None
        signed = {key: replace(one, at=now) for key, one in usage.items()}
        try:
            await asyncio.to_thread(lambda: UsageWriter(path).write(signed, durable=durable))
        except (StateError, OSError) as e:
            self._complain(f"The use of the model cannot be written: {e}")
            return False
        self._written, self._written_at = usage, now
        return True
