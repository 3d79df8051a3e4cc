"""Not logic: puts the parts of the control plane together for one configuration."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmpod.backends import Backend, Checking, Speaking, plain_spec, runpod_spec
from llmpod.backends.runpod_account import balance
from llmpod.backends.runpod_logs import tail
from llmpod.backends.runpod_pod import RunpodPods
from llmpod.backends.several import Several
from llmpod.cli.draw import Drawer
from llmpod.cli.managing import managed
from llmpod.cli.providers import backend_of, prober_of, with_removed
from llmpod.cli.proxyenv import proxy_environ
from llmpod.config import Config, PodConfig
from llmpod.errors import ProviderError, StateError
from llmpod.lifecycle import failpoint, files
from llmpod.lifecycle.act import Actor, Managed, Prober
from llmpod.lifecycle.events import EventLog
from llmpod.lifecycle.lastwords import LastWords
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.notify import Notifier
from llmpod.lifecycle.nouns import thing
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.proxyproc import ProxyProcess
from llmpod.lifecycle.purse import Purse
from llmpod.lifecycle.reconcile import Reconciler
from llmpod.lifecycle.report import Report
from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.wish import latest
from llmpod.model import Direction, Event, Record, Usage, Want
from llmpod.secret import Secret
from llmpod.veil import Veil

HOME = Path(__file__).resolve().parents[2]
DEFAULT_CONFIG = HOME / "pod_config.json"
LAST_LINES = 100
LAST_WORDS_SECONDS = 2.0
PROXY_SCRIPT = HOME / "proxy_fastapi.py"


@dataclass(slots=True)
class Plane:
    """The control plane of one configuration, open for use.

    Args:
        config: the configuration.
        key: the provider's key.
        store: its files.
        backend: its provider.
        proxy: its proxy process, or None when somebody else runs the proxy.
        clock: epoch seconds.
        point: see :class:`llmpod.lifecycle.act.Actor`.
        removed: models that the configuration names no more and that still have a machine, as they were configured.
    """

    config: Config
    key: Secret
    store: Store
    backend: Backend
    prober: Prober
    proxy: ProxyProcess | None
    clock: Callable[[], float]
    point: Callable[[str], None]
    removed: Mapping[str, PodConfig] = field(default_factory=dict)
    _unsaved: State | None = None

    def now(self, state: State) -> float:
        """Epoch seconds by the provider's clock, as far as a state knows it."""
        return self.clock() + state.clock_offset

    def run_pass(self, *, wait_seconds: float = 0.0, forced: Mapping[str, Want] | None = None) -> Report:
        """One pass under the lock.

        Args:
            wait_seconds: how long to wait for another pass.
            forced: orders for this pass that could not be written down.

        Raises:
            Busy: another pass runs for longer than that.
        """
        with self.store.lock(wait_seconds=wait_seconds):
            self.store.tidy()
            with suppress(StateError):  # a full disk is told by the pass itself, and must not stop it
                self.store.keep_config(self.config.raw)
            reconciler = self._reconciler(forced)
            report = reconciler.run()
            self._unsaved = reconciler.unsaved
        for line in Notifier(self.config.common.notifications, clock=self.clock).deliver(self.events):
            report.say(line)
        return report

    def reconciler(self) -> Reconciler:
        """For a preview, which needs no lock."""
        return self._reconciler()

    def order(
        self,
        direction: Direction,
        *,
        by: str,
        reason: str,
        proxy: bool,
        models: Collection[str] | None = None,
    ) -> dict[str, Want]:
        """Write a sticky order for all models (or some), and for the proxy too when ``proxy``.

        Returns:
            The orders that could not be written down and must be forced on each pass; empty normally. Only a
            "down" is given that way: nothing is started on an order that would be forgotten.

        Raises:
            StateError: an "up" cannot be written.
        """
        want, usage = Want(direction, at=self.clock(), by=by, reason=reason), self.store.usage()
        named = (*self.config.models, *self.removed) if models is None else models
        orders = {model: replace(want, heard=latest(usage.get(model, Usage()))) for model in named}
        orders |= {PROXY: want} if proxy else {}
        try:
            self.store.order(orders)
        except StateError:
            if direction is Direction.UP:
                raise
            return orders
        return {}

    @property
    def drawer(self) -> Drawer:
        """Says what to buy, where there is a choice."""
        pods = self.pods
        assert pods is not None
        return Drawer(self.store, pods.api, self.clock)

    @property
    def pods(self) -> RunpodPods | None:
        """Where machines are rented, if they are."""
        all_of_them = self.backend.backends if isinstance(self.backend, Several) else [self.backend]
        return next((backend for backend in all_of_them if isinstance(backend, RunpodPods)), None)

    def check(self, model: str) -> None:
        """Whether a start would be refused on this machine. Raises BadSpec if so."""
        backend: object = self.backend
        if isinstance(backend, Several):
            backend = backend.made_for(model)
        if isinstance(backend, Checking):
            backend.check()

    @property
    def events(self) -> EventLog:
        """What was worth telling."""
        return EventLog(self.store.directory, self.store.veil)

    def _tell(self, event: Event) -> None:
        with suppress(StateError):  # no news is worth stopping a pass for
            self.events.append(event)

    def _keep_last_words(self, record: Record) -> str:
        """The end of a failed pod's log, in a file; empty where there is none to be had."""
        if record.instance_id is None or not (lines := self._last_lines(record.instance_id)):
            return ""
        kept = LastWords.of(self.store.directory, self.store.veil)
        try:
            kept.keep(f"{thing(record)} {record.instance_id}", record.error, lines, now=self.clock())
        except StateError:
            return ""
        return str(kept.path)

    def _last_lines(self, instance_id: str) -> Sequence[str]:
        of = self.backend.of if isinstance(self.backend, Several) else lambda _: self.backend
        backend: object = of(instance_id)
        if isinstance(backend, RunpodPods):
            lines = tail(backend.api, instance_id, LAST_LINES, LAST_WORDS_SECONDS)
            return [line.text for line in lines]
        with suppress(ProviderError):
            return backend.tail(instance_id, LAST_LINES) if isinstance(backend, Speaking) else ()
        return ()

    def _managed(self, name: str, config: PodConfig) -> Managed:
        made = self._described(config)
        elsewhere = self.config.path != DEFAULT_CONFIG
        group = self.config.group_of(name)
        return replace(made, terms=replace(made.terms, group=group, name=name, elsewhere=elsewhere))

    def _described(self, config: PodConfig) -> Managed:
        if config.is_rented:
            drawer = self.drawer
            return managed(
                config,
                runpod_spec.digest(config),
                lambda refused: drawer.draw(config, refused).spec,
            )
        return managed(config, plain_spec.digest(config), lambda _refused: plain_spec.plain_spec(config))

    def _reconciler(self, forced: Mapping[str, Want] | None = None) -> Reconciler:
        common = self.config.common
        purse = Purse(
            Ledger(self.store.directory / FILE_NAME),
            common.budget,
            most_usd_per_hour=common.max_hourly_cost,
        )
        actor = Actor(
            self.store,
            self.backend,
            self.prober,
            purse=purse,
            clock=self.clock,
            uptime=files.uptime,
            point=self.point,
            tell=self._tell,
            last_words=self._keep_last_words,
            spend=lambda: balance(common, self.key).usd_per_hour if common.is_rented else None,
        )
        actor.memory.unsaved = self._unsaved
        models = {name: self._managed(name, config) for name, config in self.config.models.items()}
        removed = {name: self._managed(name, config) for name, config in self.removed.items()}
        return Reconciler(actor, models, self.proxy, forced=forced, removed=removed)


@contextmanager
def open_plane(
    config: Config,
    key: Secret,
    *,
    environ: Mapping[str, str],
    with_proxy: bool = True,
    veil: Veil | None = None,
    clock: Callable[[], float] = time.time,
    point: Callable[[str], None] | None = None,
) -> Iterator[Plane]:
    """Open the control plane and close its connections at the end.

    Raises:
        StateError: the directory for its files cannot be used.
        ConfigError: a failpoint is set that is none.
    """
    store = Store(config.state_file, veil=veil)
    whole, key = with_removed(config, store, key, environ)
    backend = backend_of(whole, key)
    proxy = ProxyProcess(store, PROXY_SCRIPT, proxy_environ(config, environ, store)) if with_proxy else None
    try:
        yield Plane(
            config,
            key,
            store,
            backend,
            prober_of(whole, backend, store.veil),
            proxy,
            clock,
            point or failpoint.point(environ),
            {name: model for name, model in whole.models.items() if name not in config.models},
        )
    finally:
        backend.close()


def with_port(config: Config, port: int) -> Config:
    """The same configuration with the proxy on another port."""
    models = {name: model.model_copy(update={"proxy_port": port}) for name, model in config.models.items()}
    return replace(config, models=models)


def interactive() -> bool:
    """Whether a person sits at a terminal: what they start by hand is an order."""
    return os.isatty(0)
