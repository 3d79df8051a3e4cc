"""Not part of a pass: tells the configured webhooks, after the lock is released, what the journal holds for them.

At least once: an event is noted as delivered after the target took it, so a crash in between sends it again with
the same ``id``. A target that fails is left alone for a growing while and its events are given up after a day.
Nothing here waits for longer than its bound, whatever the target does: it is asked in a thread that nobody joins.

The address of a webhook is a secret (whoever has it can post), so targets are called by place and format only.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import requests

from llmpod import __version__
from llmpod.config import Notification
from llmpod.errors import Busy, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.events import Entry, EventLog, Progress
from llmpod.lifecycle.shapes import message
from llmpod.web import Session

WITHIN_SECONDS = 5.0
GIVE_UP_SECONDS = 24 * 3600.0
_FIRST_PAUSE = 60.0
_LONGEST_PAUSE = 3600.0
_MALFORMED = (400, 413, 422)  # this event will never be taken; the next one may be


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one event at one target. ``refusal`` is empty when it was taken."""

    target: str
    entry: Entry
    refusal: str = ""
    retry_after: float = 0.0
    malformed: bool = False

    @property
    def is_last(self) -> bool:
        """Whether the target must be left alone for a while, so that nothing overtakes this event."""
        return bool(self.refusal) and not self.malformed


class Notifier:
    """Delivers events to targets.

    Args:
        targets: the configured webhooks.
        clock: epoch seconds.
        within_seconds: limit of one :meth:`deliver`, and so of each call in it.
    """

    def __init__(
        self,
        targets: Iterable[Notification],
        *,
        clock: Callable[[], float] = time.time,
        within_seconds: float = WITHIN_SECONDS,
    ) -> None:
        self._targets = {_digest(target): (place, target) for place, target in enumerate(targets)}
        self._clock = clock
        self._within = within_seconds

    def __repr__(self) -> str:
        return f"Notifier({', '.join(map(self._name, self._targets))})"

    def deliver(self, log: EventLog) -> list[str]:
        """Send what is due, to each target in order, to all targets at once.

        Returns:
            What went wrong, one line each, for the pass to say; failures are never raised.
        """
        if not self._targets:
            return []
        try:
            with files.locked(log.directory / "notify.lock", wait_seconds=self._within):
                return self._deliver(log)
        except (
            Busy
        ):  # another process delivers for longer than we would; what it leaves is due at the next pass
            return []
        except StateError as e:
            return [f"notifications: {e}"]

    def _deliver(self, log: EventLog) -> list[str]:
        now, known = self._clock(), log.progress()
        progress = {target: known.get(target, Progress.fresh(now)) for target in self._targets}
        if (
            progress != known
        ):  # also a disk that takes no notes is found here, before the same is sent at each pass
            log.delivered(progress)
        entries = log.entries()
        due = {target: self._due(target, progress[target], entries) for target in self._targets}
        lines: list[str] = []
        for outcome in self._outcomes({target: wanted for target, wanted in due.items() if wanted}):
            before = progress[outcome.target]
            after = progress[outcome.target] = self._after(before, outcome, due[outcome.target])
            log.delivered(progress)
            lines += self._said(outcome, before, after)
        return lines

    def _due(self, target: str, progress: Progress, entries: list[Entry]) -> list[Entry]:
        if (
            0 < progress.next_try_at - self._clock() <= _LONGEST_PAUSE
        ):  # more than that: the clock was put right
            return []
        kinds = self._targets[target][1].events
        return [entry for entry in entries if entry.number > progress.done and entry.event.kind in kinds]

    def _outcomes(self, due: Mapping[str, list[Entry]]) -> Iterator[_Outcome]:
        """Ask all targets at once. A thread that is not back in time is left alone; it ends with its call."""
        limit = time.monotonic() + self._within
        results: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        for target, wanted in due.items():
            sender = _Sender(target, self._targets[target][1], limit)
            threading.Thread(target=sender.run, args=(wanted, results), daemon=True).start()
        left = {target: list(wanted) for target, wanted in due.items()}
        while left:
            try:
                outcome = results.get(timeout=max(limit - time.monotonic(), 0.0))
            except queue.Empty:
                break
            left[outcome.target].remove(outcome.entry)
            if outcome.is_last or not left[outcome.target]:
                del left[outcome.target]
            yield outcome
        for target, wanted in left.items():
            if wanted == due[target]:  # who took some of them is only slow; the rest is due at the next pass
                yield _Outcome(target, wanted[0], f"no answer within {self._within:.0f} s")

    def _after(self, before: Progress, outcome: _Outcome, wanted: list[Entry]) -> Progress:
        if not outcome.is_last:
            return Progress(outcome.entry.number)
        now, failures = self._clock(), before.failures + 1
        pause = min(max(_FIRST_PAUSE * 2 ** min(failures - 1, 10), outcome.retry_after), _LONGEST_PAUSE)
        old = [e.number for e in wanted if e.number > before.done and now - e.event.at > GIVE_UP_SECONDS]
        return Progress(max(old, default=before.done), failures, now + pause)

    def _said(self, outcome: _Outcome, before: Progress, after: Progress) -> list[str]:
        if not outcome.refusal:
            return []
        name = self._name(outcome.target)
        if outcome.malformed:
            return [f"{name}: {outcome.refusal}; the event `{outcome.entry.event.kind}` is dropped there"]
        pause = after.next_try_at - self._clock()
        lines = [f"{name}: {outcome.refusal}; next try after {pause:.0f} s"]
        if after.done > before.done:
            lines.append(f"{name}: events older than a day are given up")
        return lines

    def _name(self, target: str) -> str:
        place, notification = self._targets[target]
        return f"notifications[{place}] ({notification.format})"


class _Sender:
    """One target, in a thread of its own. ``limit`` is in monotonic seconds."""

    def __init__(self, target: str, to: Notification, limit: float) -> None:
        self._target = target
        self._to = to
        self._limit = limit

    def run(self, wanted: list[Entry], results: "queue.SimpleQueue[_Outcome]") -> None:
        """Send in order until all are sent, one must be tried again, or the time is over."""
        with Session() as session:
            for place, entry in enumerate(wanted):
                left = self._limit - time.monotonic()
                if left <= 0:
                    return
                outcome = self._send(session, entry, left)
                if place and outcome.is_last and time.monotonic() >= self._limit:
                    return  # our own bound cut it off, and it took what came before: only slow
                results.put(outcome)
                if outcome.is_last:
                    return

    def _send(self, session: Session, entry: Entry, seconds: float) -> _Outcome:
        shaped = message(entry, self._to.format)
        try:
            with session.post(
                self._to.url,
                data=shaped.body,
                headers={**shaped.headers, "User-Agent": f"llmpod/{__version__}"},
                timeout=seconds,
                allow_redirects=False,
                stream=True,  # the answer's body does not matter, and may never end
            ) as response:
                return self._judged(entry, response)
        except Exception as e:  # one that left this thread would be printed, and the address with it
            return _Outcome(self._target, entry, f"cannot be reached ({type(e).__name__})")

    def _judged(self, entry: Entry, response: requests.Response) -> _Outcome:
        status, wait = response.status_code, response.headers.get("Retry-After", "")
        if 200 <= status < 300:
            return _Outcome(self._target, entry)
        note = " (redirects are not followed)" if 300 <= status < 400 else ""
        return _Outcome(
            self._target,
            entry,
            f"HTTP {status}{note}",
            retry_after=float(wait) if wait.isdecimal() else 0.0,
            malformed=status in _MALFORMED,
        )


def _digest(target: Notification) -> str:
    """Names a target in the progress file without giving its address away."""
    words = (target.url, target.format, *sorted(target.events))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:24]
