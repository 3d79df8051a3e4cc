"""Not a starter of anything: who waits for which model, and which model may run now. Pure; the clock is an argument.

Each model that starts with requests has one state (the table is in states.py), and this file alone changes it.

Of the members of a group one runs at a time. Whose turn it is: the highest priority, then who waits longest; all who
wait for that model go on together, and whoever asks for it while it runs goes on at once, until another one's waiter
has waited for ``turn_seconds``. So models are not swapped for each request, and nobody waits for ever. For those who
were told to come again it is kept until they can be there: else each of their tries would cost a start, for nobody.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from llmpod.errors import LlmpodError, ModelNotReady, Overloaded, ShuttingDown
from llmpod.proxy.states import TABLE, Act, Event, Hands, Model, Sight, State, Ticket

LINE: Final = 256  # requests that may wait for one model
TURN_SECONDS: Final = 30.0
LATE_SECONDS: Final = 10.0  # whoever is told to come again may be late by so much
FIRST_PAUSE_SECONDS: Final = 5.0  # after a start that failed; doubles each time
LONGEST_PAUSE_SECONDS: Final = 300.0


class Scheduler:
    """Owns the state of all models that start with requests. Times are monotonic seconds.

    Args:
        models: these.
        hands: the effects.
    """

    def __init__(self, models: Iterable[Model], hands: Hands) -> None:
        self._hands = hands
        self._models = {model.name: model for model in models}
        self._closed = False
        self.swaps = 0

    def model(self, name: str) -> Model:
        return self._models[name]

    # --- which models there are -----------------------------------------------------------------------------
    def have(self, model: Model) -> None:
        """One more, or one that is known by other terms; it stays in its state, and who waits for it goes on."""
        known = self._models.setdefault(model.name, model)
        known.idle_seconds, known.group, known.priority = model.idle_seconds, model.group, model.priority

    def drop(self, name: str, why: LlmpodError) -> None:
        """One less; who waits for it hears why."""
        self._turn_away(self._models.pop(name), why)

    # --- requests -------------------------------------------------------------------------------------------
    def ask(self, name: str, ticket: Ticket, now: float) -> bool:
        """Whether a request may go on at once; else it waits.

        Raises:
            LlmpodError: why its last start failed or was refused, a moment ago, or why a start would be refused.
            Overloaded: too many wait already.
            ShuttingDown: nobody waits any more.
        """
        model = self._models[name]
        kept_for_it = ticket.due is not None and now < model.kept_until
        if model.state is State.AWAKE and (kept_for_it or not self._overdue(model, now)):
            model.used_at = now
            if kept_for_it:
                model.kept_until = now
            return True
        if self._closed:
            raise _closing()
        if model.bar is not None:
            raise model.bar
        if model.trouble is not None and now < model.hold_until and model.state is State.ASLEEP:
            raise _again(model.trouble, model.hold_until - now)
        if len(model.line) >= LINE:
            raise Overloaded(f"{LINE} requests wait for {name} already, and no more may.", retry_after=10)
        ticket.since = now
        model.line.append(ticket)
        self._turn(model, now)
        return False

    def prefer(self, name: str, now: float) -> None:
        """Have a model started before anybody asks, if its place is free."""
        model = self._models[name]
        if not any(peer.there for peer in self._peers(model)):
            self._happen(model, Event.WANTED, now)

    def dismiss(self, name: str, now: float) -> bool:
        """Have a model stopped that nobody uses; False when somebody does."""
        model = self._models[name]
        if model.busy or model.line:
            return False
        if model.there:
            self._happen(model, Event.UNUSED, now, why="an operator stopped it")
        return True

    def renew(self, name: str, now: float) -> bool:
        """Have a model that is up, or on its way down, stopped and started again; False when somebody uses it."""
        model = self._models[name]
        if model.busy or model.line:
            return False
        self._happen(model, Event.RENEWED, now, why="an operator has it started anew")
        return True

    def close(self) -> None:
        """The proxy is being stopped: who waits is told, and nobody waits from now on."""
        self._closed = True
        for model in self._models.values():
            self._turn_away(model, _closing())

    def board(self, name: str, ticket: Ticket) -> None:
        """Who is let go on needs a while to get there: until ``leave`` the model is at work for it."""
        self._models[name].boarding.add(ticket)

    def leave(self, name: str, ticket: Ticket, now: float) -> None:
        """A waiting request is no more, or one that boarded has got there.

        Who has left starts nothing: a wish that nobody acted on is taken back.
        """
        model = self._models.get(name)
        if model is None:
            return
        if ticket in model.boarding:
            model.boarding.remove(ticket)
            self.released(name, now)
            return
        if ticket not in model.line:
            return
        model.line.remove(ticket)
        if model.state is State.WAKING and not model.line and not model.settled:
            self._happen(model, Event.UNUSED, now, why="who waited for it has left")
        self._turn(model, now)

    def released(self, name: str, now: float) -> None:
        """The last request that a model worked on has ended, or one has got there."""
        model = self._models[name]
        model.used_at = now
        self._turn(model, now)

    def ahead(self, name: str, ticket: Ticket) -> int:
        """How many requests wait for longer, in its group."""
        model = self._models.get(name)
        everyone = [other for peer in self._peers(model) for other in peer.line] if model is not None else []
        return sum(other.since < ticket.since for other in everyone)

    # --- what the manager made of it ----------------------------------------------------------------------------
    def seen(self, name: str, sight: Sight, now: float, *, settled: bool, why: LlmpodError) -> None:
        """How a model looks now.

        Args:
            name: which one.
            sight: how it looks.
            now: the time.
            settled: whether a pass that knew the last wish has ended, so that this is what it led to.
            why: what to tell those who wait, should it be down.
        """
        model = self._models[name]
        model.sight, model.settled = sight, settled
        settled = settled or model.state is State.AWAKE
        if sight is Sight.READY and (settled or model.state is State.ASLEEP):
            self._happen(model, Event.READY, now)
        elif sight is Sight.DOWN and settled:
            if model.state is State.WAKING:
                model.trouble = why
            self._happen(model, Event.GONE, now)
        elif sight is Sight.MOVING and model.state is State.AWAKE:
            self._happen(model, Event.GONE, now)
        elif sight is Sight.MOVING and model.state is State.ASLEEP:
            model.hold_until = now  # somebody else starts it: what it was refused for is over
        self._turn(model, now)

    def bar(self, name: str, why: LlmpodError | None, now: float) -> None:
        """Why no request may start a model, as is known beforehand: nobody waits for it, and none stops for it."""
        model = self._models[name]
        if why is None and model.bar is not None:
            model.hold_until = now
        model.bar = why
        if why is not None:
            self._turn_away(model, why)

    def tick(self, now: float) -> None:
        """Time has passed: who waited too long is told, what is unused is stopped."""
        for model in self._models.values():
            for ticket in [ticket for ticket in model.line if ticket.until <= now]:
                model.line.remove(ticket)
                ticket.no(_too_long(now - ticket.since))
            free = model.state is State.AWAKE and not model.line and not model.needed(now)
            if free and now - model.used_at >= model.idle_seconds:
                self._happen(model, Event.UNUSED, now)
            elif free and (other := self._beside(model)):
                self._happen(model, Event.UNUSED, now, why=f"{other} of its group runs, too")
            self._turn(model, now)

    # --- inside -------------------------------------------------------------------------------------------------
    def _happen(self, model: Model, event: Event, now: float, *, why: str = "") -> None:
        """``why``: should it be stopped; empty: nobody used it."""
        if event not in TABLE[model.state]:
            return
        model.state, act = TABLE[model.state][event]
        model.since = now
        if act in (Act.WAKE, Act.REST, Act.KEEP):
            model.settled = False
            self.swaps += act is Act.WAKE
            if act is Act.REST:
                self._hands.rest(model.name, why)
            else:
                self._hands.wake(model.name)
        if act in (Act.OPEN, Act.KEEP):
            model.failures, model.trouble = 0, None
            self._open(model, now)
        elif act is Act.REFUSE:
            self._refuse(model, now)

    def _open(self, model: Model, now: float) -> None:
        model.used_at = now
        waiting, model.line = model.line, deque()
        if due := [ticket.due for ticket in waiting if ticket.due is not None]:
            model.kept_until = min(max(now, *due) + LATE_SECONDS, now + TURN_SECONDS)
        model.boarding.update(waiting)  # one that fails on its way must not free the place of those behind it
        for ticket in waiting:
            model.boarding.discard(ticket)
            ticket.go()

    def _refuse(self, model: Model, now: float) -> None:
        model.failures += 1
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (model.failures - 1), LONGEST_PAUSE_SECONDS)
        why = model.trouble or ModelNotReady("The model was not started.")
        model.trouble, model.hold_until = why, now + pause
        self._turn_away(model, _again(why, pause))

    def _turn_away(self, model: Model, why: LlmpodError) -> None:
        waiting, model.line = model.line, deque()
        for ticket in waiting:
            ticket.no(why)

    def _turn(self, model: Model, now: float) -> None:
        """Give a group's place to whose turn it is; never while the one who has it is at work."""
        peers = self._peers(model)
        waiting = [peer for peer in peers if peer.line]
        if not waiting:
            return
        first = max(waiting, key=lambda peer: (peer.priority, -peer.line[0].since))
        others = [peer for peer in peers if peer.there and peer is not first]
        if first.state is State.AWAKE:
            self._open(first, now)
        elif not others:
            self._happen(first, Event.WANTED, now)
        for other in others:
            over = other.state is State.AWAKE and self._overdue(other, now)
            if not other.needed(now) and (not other.line or over):
                self._happen(other, Event.UNUSED, now, why=f"its place was needed for {first.name}")

    def _overdue(self, model: Model, now: float) -> bool:
        """Whether somebody has waited for another one of its group for so long that its turn is over."""
        return any(
            peer.line[0].since + TURN_SECONDS <= now and peer.priority >= model.priority
            for peer in self._peers(model)
            if peer is not model and peer.line
        )

    def _beside(self, model: Model) -> str:
        """Who of its group runs, too, and was used later: they were put into it when both ran already."""
        later = (peer for peer in self._peers(model) if peer is not model and peer.used_at >= model.used_at)
        return next((peer.name for peer in later if peer.state is State.AWAKE), "")

    def _peers(self, model: Model) -> list[Model]:
        if not model.group:
            return [model]
        return [peer for peer in self._models.values() if peer.group == model.group]


def _again(why: LlmpodError, seconds: float) -> LlmpodError:
    """The same trouble, with the time after which it makes sense to ask again."""
    return type(why)(why.message, hint=why.hint, retry_after=why.retry_after or seconds, param=why.param)


def _closing() -> ShuttingDown:
    return ShuttingDown("The proxy is being stopped while the model starts.", retry_after=5)


def _too_long(seconds: float) -> ModelNotReady:
    return ModelNotReady(
        f"The model did not become ready in {seconds:.0f} s; its start goes on.",
        hint="Try again later, or raise `start_timeout_seconds`.",
        retry_after=30,
    )
