"""Not the files: what a pass knows while it runs: the state, the time, what was told. The caller holds the lock."""

from collections.abc import Callable, Collection
from dataclasses import replace

from llmpod.errors import StateError
from llmpod.lifecycle import telling
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.state import ClockMark, State
from llmpod.lifecycle.store import Store
from llmpod.model import Event, Record, Refusal

REFUSED_SECONDS = 180.0
SKEW_SECONDS = 30.0


class Memory:
    """The state of one pass; every change is on disk before the call returns.

    Args:
        store: the files.
        clock: epoch seconds of this machine; the provider's own clock corrects it once it is known.
        point: called with a name at every effect; tests crash here.
        tell: takes what is worth telling a person.
        uptime: the boot and its age, by a clock that nobody can set; None: there is none.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        point: Callable[[str], None],
        tell: Callable[[Event], None],
        uptime: Callable[[], tuple[str, float] | None],
    ) -> None:
        self.store = store
        self.point = point
        self.report = Report()
        self.state = State()
        self.unsaved: State | None = None
        """What the disk refused: a later pass of the same process goes on from it."""
        self._clock = clock
        self._tell = tell
        self._uptime = uptime

    def load(self) -> None:
        """Raises StateError: the state is unreadable."""
        self.state = self.unsaved or self.store.load()
        mark, age = self.state.clock_mark, self._uptime()
        # A clock that jumped since the provider's word must end nothing before the provider speaks again.
        if mark and age and mark.boot == age[0] and mark.uptime <= age[1]:
            self._correct(mark.at + age[1] - mark.uptime)

    def record(self, model: str) -> Record:
        return self.state.record(model)

    def now(self) -> float:
        """Epoch seconds by the provider's clock: its own times and our deadlines are compared with it."""
        return self._clock() + self.state.clock_offset

    @property
    def wall(self) -> float:
        """Epoch seconds by this machine's own clock: the proxy's times are compared with it."""
        return self._clock()

    def set_clock(self, at: float | None) -> None:
        """Take over the provider's time; what it says of itself is to the second, so small differences are none."""
        if at is None:
            return
        self._correct(at)
        if offset := self.state.clock_offset:
            self.report.say(f"this machine's clock is {-offset:+.0f} s off; RunPod's time counts")
        if age := self._uptime():
            self.state = replace(self.state, clock_mark=ClockMark(*age, at))

    def _correct(self, at: float) -> None:
        offset = at - self._clock()
        self.state = replace(self.state, clock_offset=offset if abs(offset) >= SKEW_SECONDS else 0.0)

    def save(self, state: State) -> None:
        """Durable before it returns."""
        try:
            self.store.save(state)
        except StateError:
            self.unsaved = state
            raise
        self.state, self.unsaved = state, None
        self.point("saved")

    def keep(self, model: str, record: Record) -> None:
        """Save a model's record when it changed, and tell what that means."""
        before = self.state.record(model)
        if record == before:
            return
        for event in telling.changes(model, before, record, self.now()):
            self._tell(event)
        self.save(self.state.with_record(model, record))

    def alarm(self, key: str, event: Event) -> None:
        """Tell something that holds for a while, once."""
        if key in self.state.told:
            return
        self._tell(event)
        self.report.say(f"{event.model}: {event.text}" if event.model else event.text)
        told = telling.remembered({**self.state.told, key: self.now()}, self.now())
        self.state = replace(self.state, told=told)

    def keep_if_possible(self, model: str, record: Record) -> None:
        """The same before an effect that needs no memory: a full disk must not keep a machine alive."""
        try:
            self.keep(model, record)
        except StateError as e:
            self.report.fail(e)
            self.state = self.unsaved = self.state.with_record(model, record)

    def unwoken(self, model: str, refusal: Refusal | None) -> None:
        """Remember why a request could not start a model, or forget it; the end of the pass writes it down."""
        kept = {name: why for name, why in self.state.unwoken.items() if name != model}
        self.state = replace(self.state, unwoken={**kept, **({model: refusal} if refusal else {})})

    def bar(self, model: str, refusal: Refusal | None) -> None:
        """Remember why no request may start a model now, or that one may; the end of the pass writes it down."""
        kept = {name: why for name, why in self.state.barred.items() if name != model}
        self.state = replace(self.state, barred={**kept, **({model: refusal} if refusal else {})})

    def forget(self, models: Collection[str]) -> None:
        """Know nothing more of models that are configured no more and have no machine."""
        records = {name: record for name, record in self.state.records.items() if name not in models}
        unwoken = {name: why for name, why in self.state.unwoken.items() if name not in models}
        barred = {name: why for name, why in self.state.barred.items() if name not in models}
        self.state = replace(self.state, records=records, unwoken=unwoken, barred=barred)

    def refused(self) -> dict[str, float]:
        """What could not be had so recently that asking again is of no use."""
        now = self.now()
        return {key: at for key, at in self.state.refused.items() if 0 <= now - at < REFUSED_SECONDS}

    def refuse(self, key: str) -> None:
        """Remember that an offer could not be had; lost in a crash, which costs one more question."""
        self.state = replace(self.state, refused={**self.refused(), key: self.now()})
