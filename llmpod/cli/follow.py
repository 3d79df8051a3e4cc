"""Not a pass: repeats passes for a person who waits, and shows by true phases how far a start has come."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from llmpod.backends import SomeAway
from llmpod.backends.runpod_logs import PodLog
from llmpod.cli.show import ALIVE, money
from llmpod.cli.wiring import Plane
from llmpod.config.schema import PodConfig
from llmpod.errors import LlmpodError, ProviderError, Refused
from llmpod.lifecycle.money import dollars
from llmpod.lifecycle.report import Report
from llmpod.model import Instance, Phase, Record, Want
from llmpod.text import duration

LOCK_SECONDS = 90.0
_STEPS: dict[Phase, str] = {
    Phase.INTENT: "asking for a machine",
    Phase.UNKNOWN: "looking for what a creation without a clear answer may have made",
    Phase.CREATED: "created",
    Phase.BOOTING: "container up",
    Phase.LOADING: "server answering, model loading",
    Phase.READY: "model ready",
    Phase.TERMINATING: "terminating",
}


@dataclass(slots=True)
class Follower:
    """Repeats passes and prints what changes.

    Args:
        plane: the control plane.
        console: where to print.
        verbose: print every line of every pass, not just changes.
        sleep: waits so many seconds.
        foreign: the account's pods that are not ours, as the last pass saw them.
    """

    plane: Plane
    console: Console
    verbose: bool = False
    sleep: Callable[[float], None] = time.sleep
    foreign: tuple[Instance, ...] = ()
    _shown: str = ""

    def until_ready(self, model: str) -> Record:
        """Repeat passes until the model is ready or will not become so by itself.

        Returns:
            The record at the end; its phase says which it was.

        Raises:
            LlmpodError: the start cannot go on (no money, bad key, port taken …).
        """
        config, polls = self.plane.config.models[model], 0
        with self.console.status("one pass …") as live:
            while True:
                report = self.plane.run_pass(wait_seconds=LOCK_SECONDS)
                self._lines(report)
                state = self.plane.store.load()
                record = state.record(model)
                live.update(self._show(record, self.plane.now(state)))
                if model in report.ready or self._settled(record, report):
                    return record
                self.sleep(self._pause(config, polls, record))
                polls += 1

    def until_gone(self, *, limit_seconds: float, forced: Mapping[str, Want] | None = None) -> bool:
        """Repeat passes until nothing of ours exists any more.

        Args:
            limit_seconds: for how long.
            forced: orders that could not be written down.

        Returns:
            True when the provider's own list says so; False when the limit passed first.

        Raises:
            Refused: RunPod will not hear us; the order stands for a later pass.
        """
        limit, said = self.plane.clock() + limit_seconds, False
        while True:
            report = self.plane.run_pass(wait_seconds=LOCK_SECONDS, forced=forced)
            self.foreign = report.foreign
            self._lines(report)
            self._tell(report.error)
            self._give_up(report)
            if report.remaining == 0 and not ALIVE.intersection(report.phases.values()):
                return True
            if self.plane.clock() > limit:
                return False
            if not said:
                text = (
                    "  waiting until the provider shows that it is gone; Ctrl-C leaves that to the next pass"
                )
                self.console.print(text, highlight=False)
                said = True
            self.sleep(min(2.0, self.plane.config.common.poll_interval_seconds))

    @staticmethod
    def _give_up(report: Report) -> None:
        """Raises Refused: of what is left, asking again will not tell anything."""
        error = report.error
        if isinstance(error, SomeAway):
            in_reach = (phase for model, phase in report.phases.items() if model not in error.models)
            error = error.final if ALIVE.isdisjoint(in_reach) else None
        if isinstance(error, Refused):
            raise error

    def _tell(self, error: LlmpodError | None) -> None:
        """Why it takes so long, once for each reason."""
        if error is not None and str(error) != self._shown:
            self._shown = str(error)
            self.console.print(f"  {error}", highlight=False, markup=False)

    def _lines(self, report: Report) -> None:
        for line in report.lines if self.verbose else []:
            self.console.print(f"  {line}", highlight=False, markup=False)

    def _settled(self, record: Record, report: Report) -> bool:
        """Whether waiting would not help: given up, stopped by order, or refused for good."""
        if report.error is not None and not isinstance(report.error, ProviderError):
            raise report.error
        if record.phase is Phase.FAILED and record.next_try_at is None:
            return True
        if record.phase is Phase.STOPPED:
            if report.error is not None:
                raise report.error
            return record.next_try_at is None
        return False

    def _pause(self, config: PodConfig, polls: int, record: Record) -> float:
        """First a long wait, then close polls, then a slower pace for the rest of the start-up budget."""
        if polls == 0 and record.phase is Phase.CREATED:
            return max(config.initial_wait_seconds, config.poll_interval_seconds)
        slow = 1 if polls < config.max_startup_attempts else 3
        return config.poll_interval_seconds * slow

    def _show(self, record: Record, now: float) -> str:
        """Print a line when the phase changed; return the same line for the live display."""
        step = self._step(record)
        elapsed = duration(now - record.created_at) if record.created_at else "0 s"
        details = [f"after {elapsed}"]
        if record.usd_per_hour != 0:
            details.append(f"{dollars(money(record, now).spent)} so far")
        if record.phase is Phase.CREATED:
            details.append(self._typical(record))
        line = f"  [bold]{escape(step)}[/bold]  ({escape(', '.join(details))})"
        if step != self._shown:
            self.console.print(line, highlight=False)
        self._shown = step
        return line

    def _typical(self, record: Record) -> str:
        typical = self.plane.store.typical_start(record.model)
        if self.plane.config.common.backend == "demo":
            return "a few seconds in the demo"
        if typical is None and not self.plane.config.common.is_rented:
            return "no start measured yet"
        if typical is None:
            return "no start measured yet; a first one often takes 3 to 15 minutes"
        seconds, starts = typical
        of = f"the last {starts} starts" if starts > 1 else "its last start"
        return f"typically ready after {duration(max(seconds, 1.0))} ({of})"

    def _step(self, record: Record) -> str:
        if record.phase is Phase.CREATED:
            return self._pulling(record) or f"created {record.instance_id} on {record.gpu}"
        if record.phase in (Phase.STOPPED, Phase.FAILED, Phase.TERMINATING) and record.error:
            return f"{record.phase}: {record.error}"
        return _STEPS.get(record.phase, str(record.phase))

    def _pulling(self, record: Record) -> str:
        """The pod's system log is what tells pulling the image from being stuck."""
        pods = self.plane.pods
        if pods is None or record.instance_id is None:
            return ""
        log = PodLog(pods.api, record.instance_id, source="system", tail=5)
        try:
            lines = log.past(quiet_seconds=0.5, within_seconds=1.0)
        except ProviderError:
            return ""
        return "pulling the image" if any("pull" in line.text.lower() for line in lines) else ""


def not_ready(model: str, record: Record) -> LlmpodError:
    """The error for a start that is over without a model that answers."""
    why = record.error or record.down_reason or "it was stopped before it answered"
    hint = f"`logs {model}` shows more, `up {model}` tries again. The proxy goes on; `--shutdown` ends it."
    return LlmpodError(f"{model} is {record.phase}: {why.rstrip('.')}.", hint=hint)
