"""Not the scheduler: its eyes and hands. What it wishes is written down and the manager told; what the manager made
of it is read from the state file.

A wish is settled when a pass that began after it was on disk has ended, and the state was read after that. Until then
nothing is concluded from the state: it may show what was before.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Final

from llmpod.config import ProxySettings
from llmpod.config.demand import Demand as Terms
from llmpod.errors import LlmpodError, NoMoney
from llmpod.observe import Log
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.passes import MANAGER, Passes
from llmpod.proxy.route import ALONE, Destination
from llmpod.proxy.scheduler import Scheduler
from llmpod.proxy.sight import no_longer, sight_of, why_barred, why_down
from llmpod.proxy.states import Model, State, Ticket

TICK_SECONDS: Final = 0.25
LOST_SECONDS: Final = 5.0  # between two passes for servers that cannot be reached
BARRED_SECONDS: Final = 30.0  # between two passes for requests that are refused by what the last one knew
UNKNOWN_START_SECONDS: Final = 30.0  # said of a start that was never measured


class Demand:
    """The models that start with requests.

    Args:
        settings: which they are; see ``adopt``.
        keeper: knows where they answer, and writes down what is wished.
        log: told of wishes and failures.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: ProxySettings,
        keeper: Keeper,
        log: Log,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._terms: Mapping[str, Terms] = {}
        self._keeper = keeper
        self._log = log
        self._clock = clock
        usual = settings.config_file in (None, MANAGER.with_name("pod_config.json"))
        self._logs = f"python3 manage_pod.py{'' if usual else f' --config {settings.config_file}'} logs"
        self._passes = Passes(settings, log, said=self._passed)
        self._told: dict[str, float] = {}  # by model: when its last wish was told to the manager
        self._wishes = 0
        self._last: dict[str, int] = {}
        self._began = 0.0
        self._lost_at = self._barred_at = -math.inf
        self._error = ""
        self._ghosts: dict[str, Ticket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self.scheduler = Scheduler((), self)

    def start(self) -> None:
        """Look, and go on looking."""
        self._keeper.on_change(self._observe)
        self._keeper.when_let_go = self._let_go
        self.adopt(self._settings)

    def adopt(self, settings: ProxySettings) -> None:
        """Other models, or the same on other terms; those that stay keep their state, and who waits for them waits."""
        before, self._terms, self._settings = self._terms, settings.demand, settings
        for name in before.keys() - settings.demand.keys():
            self._leave_alone(name)
        for name, one in settings.demand.items():
            use = self._keeper.use(name)
            use.when_free, use.when_lost = partial(self._released, name), self._lost
            self.scheduler.have(Model(name, use, one.idle_seconds, group=one.group, priority=one.priority))
        if settings.demand and self._ticker is None:
            self._passes.start()
            self._ticker = asyncio.create_task(self._tick())
        self._observe()
        for name, one in settings.demand.items():
            if one.preload and name not in before:
                self.scheduler.prefer(name, self._clock())

    def _leave_alone(self, name: str) -> None:
        """A model that requests start no more, or that is configured no more."""
        use = self._keeper.use(name)
        use.when_free = use.when_lost = _nothing
        for memory in (self._told, self._last, self._ghosts):
            memory.pop(name, None)
        stays = name in {route.model_key for route in self._settings.routes} or (
            name == ALONE and not self._settings.routes
        )
        self.scheduler.drop(name, no_longer(name, stays=stays))

    async def aclose(self) -> None:
        """Leave all as it is: what runs goes on, and the manager ends it when nobody uses it."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self._passes.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- for requests ---------------------------------------------------------------------------------------
    def manages(self, model_key: str) -> bool:
        """Whether this model starts with requests."""
        return model_key in self._terms

    def ask(self, model_key: str, ticket: Ticket) -> bool:
        """See ``Scheduler.ask``. What bars a model is as old as the last pass: who is refused has it looked at."""
        now = self._clock()
        if self.scheduler.model(model_key).bar is not None and now - self._barred_at >= BARRED_SECONDS:
            self._barred_at = now
            self._passes.ask()
        return self.scheduler.ask(model_key, ticket, now)

    def leave(self, model_key: str, ticket: Ticket) -> None:
        """See ``Scheduler.leave``."""
        self.scheduler.leave(model_key, ticket, self._clock())

    def board(self, model_key: str, ticket: Ticket) -> None:
        """See ``Scheduler.board``."""
        self.scheduler.board(model_key, ticket)

    def until(self, model_key: str) -> float:
        """When somebody who comes now stops waiting."""
        return self._clock() + self._terms[model_key].start_timeout_seconds

    def call(self, model_key: str) -> bool:
        """Have a model started for somebody who will come again instead of waiting; whether it is there already.

        Raises:
            LlmpodError: why it cannot be.
        """
        ghost = self._ghosts.get(model_key)
        if ghost is not None and ghost in self.scheduler.model(model_key).line:
            return False
        ghost = Ticket(lambda: None, lambda _: None, self.until(model_key), due=self._clock())
        self._ghosts[model_key] = ghost
        return self.ask(model_key, ghost)

    def expect(self, model_key: str, seconds: float) -> None:
        """Whoever called was told to come again after so long."""
        if (ghost := self._ghosts.get(model_key)) is not None:
            ghost.due = max(ghost.due or 0.0, self._clock() + seconds)

    def dismiss(self, model_key: str) -> bool:
        """Have a model stopped if nothing is in flight; whether it is being stopped or down.

        Who said that they would come again do not wait: they find it stopped, and have it started.
        """
        if (ghost := self._ghosts.pop(model_key, None)) is not None:
            self.leave(model_key, ghost)
        return self.scheduler.dismiss(model_key, self._clock())

    def renew(self, model_key: str) -> bool:
        """Have a model started anew, or started where it is not up; False when it is at work.

        Raises:
            LlmpodError: why it cannot be started.
            NoMoney: it could be stopped, but its start is not for the proxy to wish.
        """
        if self.scheduler.model(model_key).state in (State.ASLEEP, State.WAKING):
            self.call(model_key)
            return True
        if not self._terms[model_key].may_wake:
            raise NoMoney(
                "Starting it again costs money, which the proxy may not do; it was not stopped.",
                hint="Set `wake_on_request`, or do it yourself: python3 manage_pod.py down, then up",
            )
        return self.scheduler.renew(model_key, self._clock())

    def state(self, model_key: str) -> str:
        """What the model is in, as operators read it."""
        return self.scheduler.model(model_key).state.name.lower()

    def waiting(self, model_key: str) -> int:
        """How many requests wait for it."""
        return len(self.scheduler.model(model_key).line)

    def left(self, destination: Destination) -> float:
        """Seconds until a model is likely to answer, by its last starts."""
        model = self.scheduler.model(destination.model_key)
        took = destination.typical_start[0] if destination.typical_start else UNKNOWN_START_SECONDS
        spent = self._clock() - model.since if model.state is State.WAKING else 0.0
        return max(1.0, took - spent)

    def would_start(self) -> tuple[bool, str]:
        """Whether a request that comes now would have a model started, as far as is known, and why not."""
        now = self._clock()
        models = [self.scheduler.model(name) for name in self._terms]
        whys = [model.bar or (model.trouble if now < model.hold_until else None) for model in models]
        named = "{0}: {1}" if len(models) > 1 else "{1}"
        said = [named.format(model.name, why.message) for model, why in zip(models, whys, strict=True) if why]
        return len(said) < len(models), " ".join(said)

    # --- the scheduler's hands ------------------------------------------------------------------------------
    def wake(self, model: str) -> None:
        """Wish that a model be started."""
        self._keeper.wish(model, wake=True)
        self._tell(model, "wake")

    def rest(self, model: str, why: str) -> None:
        """Wish that a model be stopped, and say why; empty: nobody used it."""
        self._keeper.wish(model, wake=False, why=why)
        self._tell(model, "rest")

    def _released(self, model: str) -> None:
        self.scheduler.released(model, self._clock())

    def _lost(self) -> None:
        """What died in silence is for the manager to see; until it does, requests go to nobody, or to a stranger
        who has got the port since.
        """
        now = self._clock()
        if now - self._lost_at >= LOST_SECONDS:
            self._lost_at = now
            self._passes.ask()

    def _tell(self, model: str, wish: str) -> None:
        self._log.info("demand", model=model, wish=wish)
        self._told[model] = math.inf
        self._wishes += 1
        self._last[model] = self._wishes
        self._do(self._write(model, self._wishes))

    async def _write(self, model: str, number: int) -> None:
        """A wish is on disk before the manager is told; one that the disk refuses has failed."""
        written = await self._keeper.write(durable=True)
        if self._last.get(model) != number:  # another one came meanwhile, which may not be on disk yet
            return
        if written:
            self._told[model] = self._passes.ask()
        else:
            self._told[model] = -math.inf
            self._error = "The wish cannot be written down; see the proxy's log."
            self._observe()

    # --- its eyes -------------------------------------------------------------------------------------------
    def _passed(self, began: float, error: str) -> None:
        self._do(self._look(began, error))

    async def _look(self, began: float, error: str) -> None:
        await self._keeper.look()
        self._began, self._error = max(began, self._began), error
        self._observe()

    def _observe(self) -> None:
        """Tell the scheduler how each model looks."""
        self._bar()
        for name in self._terms:
            destination = self._keeper.by_key(name)
            settled = self._began >= self._told.get(name, -math.inf)
            sight, why = sight_of(destination), self._why(name, destination)
            failures = self.scheduler.model(name).failures
            self.scheduler.seen(name, sight, self._clock(), settled=settled, why=why)
            if self.scheduler.model(name).failures > failures:
                self._log.warning("start_failed", model=name, reason=str(why), see=self._logs)

    def _bar(self) -> None:
        for name in self._terms:
            self.scheduler.bar(name, why_barred(self._keeper.by_key(name)), self._clock())

    def _why(self, name: str, destination: Destination | None) -> LlmpodError:
        wished = self._keeper.use(name).wake_wanted
        return why_down(name, destination, wished=wished, error=self._error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._bar()  # what bars a model may have an end
            self.scheduler.tick(self._clock())

    def _let_go(self) -> None:
        """A machine may be ended: the manager need not wait for its time."""
        if self._ticker is not None:
            self._passes.ask()

    def _do(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _nothing() -> None:
    """Nobody waits for it."""
