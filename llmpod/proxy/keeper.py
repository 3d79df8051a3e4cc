"""Not the manager: it starts nothing. It follows the state file and tells the manager, in a file, what was used.

The state file is looked at by its time, size and inode on a short interval; a change is read in a thread. An
unreadable file changes nothing here: the last known truth stays (F45).
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llmpod.config import ProxySettings
from llmpod.errors import ModelNotReady, StateError
from llmpod.lifecycle.share import Follower, UsageWriter
from llmpod.model import Phase, Usage
from llmpod.observe import Log
from llmpod.observe.logs import iso
from llmpod.proxy.exposure import warn_of_clear
from llmpod.proxy.route import Destination, choose, fixed, followed

LOOK_SECONDS: Final = 0.25
WRITE_SECONDS: Final = 1.0
_STARTING: Final = {
    Phase.INTENT: "A machine is being ordered",
    Phase.UNKNOWN: "A machine was ordered and is being looked for",
    Phase.CREATED: "The machine is being set up",
    Phase.BOOTING: "The machine is up and its server is starting",
    Phase.LOADING: "The server is loading the model",
}


@dataclass(slots=True)
class Use:
    """What the proxy saw of one model since it started."""

    in_flight: int = 0
    requests: int = 0
    last_byte: float | None = None
    wake_wanted: float | None = None

    def frozen(self) -> Usage:
        return Usage(self.last_byte, self.in_flight, self.wake_wanted, self.requests)


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
        self._task: asyncio.Task[None] | None = None
        self.destinations: tuple[Destination, ...] = (
            (fixed(settings),) if settings.endpoint else followed({}, settings)
        )

    @property
    def follows(self) -> bool:
        return self._settings.endpoint is None and self._settings.state_file is not None

    def adopt(self, settings: ProxySettings) -> None:
        """Other settings from now on; the state file is read anew, for they name a model that it does not know."""
        self._settings = settings
        self._stamp = None
        if settings.endpoint:
            self.destinations = (fixed(settings),)

    async def start(self) -> None:
        """Read the state once, then go on in the background."""
        if self.follows:
            await self._look()
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop following; the last use is written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await self._write()

    def destination(self, model: str | None) -> Destination:
        """The model a request is for. Raises ModelNotReady when none is known at all."""
        found = choose(self.destinations, model)
        if found is None:
            raise ModelNotReady(
                "No model server is known.", hint="Start one: python3 manage_pod.py up", retry_after=30
            )
        return found

    def use(self, model_key: str) -> Use:
        """The counters of one model; the caller changes them."""
        return self._use.setdefault(model_key, Use())

    def not_ready(self, destination: Destination, *, wished: bool = True) -> ModelNotReady:
        """Why nothing can answer now and what to do; notes that somebody wished for the model, if so."""
        if wished:
            self.use(destination.model_key).wake_wanted = self._clock()
        name = destination.names[0] if destination.names else destination.identity
        if (doing := _STARTING.get(destination.phase or Phase.STOPPED)) is not None:
            return ModelNotReady(f"{doing} for {name}.", hint="Try again in a moment.", retry_after=10)
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
            await self._look()
            if self._clock() - written >= WRITE_SECONDS:
                written = self._clock()
                await self._write()

    async def _look(self) -> None:
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
        except StateError as e:
            self._complain(str(e))
            return
        self._stamp = stamp
        self._complaint = ""
        self.trouble = f"{seen.trouble.text} (since {iso(seen.trouble.since)})" if seen.trouble else ""
        self._log.veil.learn(*(target.api_key for target in seen.targets.values()))
        before, self.destinations = self.destinations, followed(seen.targets, self._settings)
        if before != self.destinations:
            self._changed()
            for d in self.destinations:
                self._log.info("target", model=d.identity, phase=d.phase, origin=d.origin)
                if d.origin is not None:
                    warn_of_clear(d.origin, self._log)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self._log.warning("state_unreadable", reason=text)

    async def _write(self) -> None:
        usage = {key: use.frozen() for key, use in self._use.items()}
        path = self._settings.state_file
        if usage == self._written or path is None:
            return
        try:
            await asyncio.to_thread(lambda: UsageWriter(path).write(usage))
        except (StateError, OSError) as e:
            self._complain(f"The use of the model cannot be written: {e}")
            return
        self._written = usage
