"""Not a queue (scheduler.py): what a request hears while its model starts, in the way that its client can live with.

Who waits here is not worked on: the place (slots.py) is another one's meanwhile.

| way    | a stream                                           | one document                                  |
|--------|----------------------------------------------------|-----------------------------------------------|
| hold   | keepalives in the form that the client counts      | silence, or white space where that is allowed |
| text   | chat: what happens, as reasoning; others: ``hold`` | ``hold``                                      |
| refuse | 503 with the time that the start is likely to take | the same                                      |
| auto   | ``hold``                                           | ``hold``; ``refuse`` if clients would give up |

What has begun with a keepalive or a text and fails ends with an error event and a cut.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final

from llmpod.cache.paths import Shape, shape_of
from llmpod.config import ProxySettings
from llmpod.errors import LlmpodError, ModelNotReady
from llmpod.model import Phase, Today
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.demand import Demand
from llmpod.proxy.dispatch import Job
from llmpod.proxy.headers import NOSNIFF, get
from llmpod.proxy.keepalive import Beat, Keepalive
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.prewarm import Warmth
from llmpod.proxy.replies import SSE_TYPE, STREAM_FIELDS
from llmpod.proxy.route import Destination
from llmpod.proxy.states import Ticket
from llmpod.text import duration

SILENCE_SECONDS: Final = (
    240.0  # Node's fetch gives up on 300 s without a byte (measured, clients' behaviour, 4)
)
TEXT_SECONDS: Final = 5.0  # between two texts
_DOING: Final = {
    Phase.INTENT: "a machine is being ordered",
    Phase.CREATED: "the machine is being set up",
    Phase.BOOTING: "the server is starting",
    Phase.LOADING: "the model is being loaded",
    Phase.TERMINATING: "another machine is being stopped",
}


class Lobby:
    """Where requests wait for their model.

    Args:
        settings: which clients get what.
        demand: who starts models.
        keeper: knows how far a model is, and the money.
        keepalive: chooses the form of a keepalive.
        warmth: knows requests of our own.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        settings: ProxySettings,
        demand: Demand,
        keeper: Keeper,
        *,
        keepalive: Keepalive,
        warmth: Warmth,
        clock: Callable[[], float],
    ) -> None:
        self.demand = demand
        self.keeper = keeper
        self.clock = clock
        self.beat_seconds = settings.keepalive_seconds
        self._keepalive = keepalive
        self._ways = settings.loading
        self._spaces = settings.keepalive_json
        self._warmth = warmth

    def is_for(self, job: Job) -> bool:
        """Whether this request may start its model and wait for it: a link, an image or a warm-up must not (T1)."""
        managed = self.demand.manages(job.destination.model_key)
        return managed and job.ask.method == "POST" and not self.is_ours(job)

    def is_ours(self, job: Job) -> bool:
        """Whether it is a warm-up."""
        return self._warmth.is_ours(job.ask)

    def enter(self, job: Job, answer: Answer, go: Callable[[], None], *, whole: bool) -> None:
        """Call ``go`` when the model answers, at once if it does; or fail the answer.

        Args:
            job: the request.
            answer: what the client hears meanwhile, unless it can be given nothing but the ``whole`` answer.
            go: goes on with it.
            whole: see there.

        Raises:
            LlmpodError: it may not wait, or the model cannot be started.
        """
        way = self._way(job)
        if way == "refuse":
            if not self.demand.call(job.destination.model_key):
                raise self._later(job.destination)
            go()
            return
        _Wait(self, job, answer, go, texts=way == "text" and not whole, quiet=whole).begin()

    def beat(self, job: Job, model: str) -> Beat | None:
        """A keepalive."""
        return self._keepalive.beat(job.ask, stream=job.want.stream, model=model)

    def now_of(self, job: Job) -> Destination:
        """The model as it is now."""
        return self.keeper.by_key(job.destination.model_key) or job.destination

    def _way(self, job: Job) -> str:
        way = _of_client(self._ways, job.ask)
        if way != "auto":
            return way
        silent = not job.want.stream and not self._spaces
        return "refuse" if silent and self.demand.left(self.now_of(job)) > SILENCE_SECONDS else "hold"

    def _later(self, destination: Destination) -> ModelNotReady:
        wait = ceil(self.demand.left(destination))
        self.demand.expect(destination.model_key, wait)
        return ModelNotReady(
            f"{_called(destination)} is being started{_typically(destination)}.",
            hint="Ask again then.",
            retry_after=wait,
        )


class _Wait:
    """One request in the lobby."""

    def __init__(
        self, lobby: Lobby, job: Job, answer: Answer, go: Callable[[], None], *, texts: bool, quiet: bool
    ) -> None:
        self._lobby = lobby
        self._job = job
        self._answer = answer
        self._go_on = go
        self._texts = texts and job.want.stream and shape_of(job.ask.path) is Shape.CHAT and job.ask.chunks
        self._quiet = quiet
        self._model = job.destination.model_key
        self._began = lobby.clock()
        self._said = ""
        self._timer: asyncio.TimerHandle | None = None
        self._ticket = Ticket(self._go, self._no, lobby.demand.until(self._model))

    def begin(self) -> None:
        """Raises what ``Lobby.enter`` does."""
        if self._lobby.demand.ask(self._model, self._ticket):
            self._go_on()
            return
        if self._answer.over:  # it was refused within the call
            return
        self._answer.when_over = self._leave
        if self._texts:
            self._speak()
        self._later()
        if self._answer.place is not None:  # others need not wait for this model
            self._answer.place.step_aside()

    def _later(self) -> None:
        seconds = TEXT_SECONDS if self._texts else self._lobby.beat_seconds
        if seconds and not self._quiet:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._beat)

    def _beat(self) -> None:
        if not self._answer.congested:
            if self._texts:
                self._speak()
            elif (beat := self._lobby.beat(self._job, self._answer.model)) is not None:
                self._write(beat)
        self._later()

    def _speak(self) -> None:
        """What is new; else a dot, so that somebody sees that it goes on."""
        destination, demand = self._lobby.now_of(self._job), self._lobby.demand
        text = status(
            destination,
            ahead=demand.scheduler.ahead(self._model, self._ticket),
            today=self._lobby.keeper.today,
            typical=not self._said,
        )
        news = text if text != self._said else ""
        self._said = text
        self._think(f"{news}\n" if news else ".")

    def _think(self, text: str) -> None:
        chunk = {
            "id": "loading",
            "object": "chat.completion.chunk",
            "created": int(self._lobby.clock()),
            "model": self._answer.model,
            "choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}],
        }
        data = b"data: %b\n\n" % json.dumps(chunk).encode()
        self._write(Beat([SSE_TYPE, NOSNIFF, *STREAM_FIELDS], data, events=True))

    def _write(self, beat: Beat) -> None:
        answer = self._answer
        if not answer.started:
            answer.events, answer.blank = beat.events, not beat.events
            answer.start(200, beat.fields)
        answer.write(beat.data)

    # --- how it ends ----------------------------------------------------------------------------------------
    def _go(self) -> None:
        """The model answers; a place to be worked on in is needed again, and that may take a while."""
        if self._answer.place is None:
            self._go_there()
            return
        self._lobby.demand.board(self._model, self._ticket)
        self._answer.place.come_back(self._go_there)

    def _go_there(self) -> None:
        self._stop()
        if self._texts:
            self._think(f"\nReady after {duration(max(self._lobby.clock() - self._began, 1.0))}.\n\n")
        try:
            self._go_on()
        except Exception as error:  # as in Relay.serve: whatever happens leaves in OpenAI's shape
            self._answer.fail(error)
        self._lobby.demand.leave(self._model, self._ticket)

    def _no(self, error: LlmpodError) -> None:
        self._stop()
        self._answer.fail(error)

    def _leave(self) -> None:
        self._stop()
        self._lobby.demand.leave(self._model, self._ticket)

    def _stop(self) -> None:
        self._answer.when_over = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def status(destination: Destination, *, ahead: int, today: Today | None, typical: bool) -> str:
    """How far a start is, for people: what starts, how long that takes, what it costs, who is before them.

    Args:
        destination: the model.
        ahead: requests that wait for longer.
        today: the day's money or None.
        typical: with the time that it usually takes.
    """
    doing = _DOING.get(destination.phase or Phase.STOPPED, "it waits for its turn")
    parts = [f"Starting {_called(destination)}{f' on {destination.gpu}' if destination.gpu else ''}: {doing}"]
    if typical and destination.typical_start:
        parts.append(_typically(destination).removeprefix(", "))
    if destination.usd_per_hour:
        parts.append(f"${destination.usd_per_hour:.2f}/h")
        if today is not None:
            parts.append(f"today ${today.spent_usd:.2f} of ${today.limit_usd:.2f}")
    if ahead:
        parts.append(f"{ahead} before you")
    return ", ".join(parts)


def _called(destination: Destination) -> str:
    return destination.names[0] if destination.names else destination.identity


def _typically(destination: Destination) -> str:
    if destination.typical_start is None:
        return ""
    seconds, starts = destination.typical_start
    return f", about {duration(max(seconds, 1.0))} (last {starts} start{'s' if starts > 1 else ''})"


def _of_client(ways: Mapping[str, str], ask: Ask) -> str:
    """The way of a client, by the longest beginning of its User-Agent that is named."""
    agent = get(ask.headers, b"user-agent").decode("latin-1").lower()
    named = [name for name in ways if name != "*" and agent.startswith(name.lower())]
    return ways[max(named, key=len)] if named else ways.get("*", "auto")
