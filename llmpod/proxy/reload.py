"""Not a reader of settings: takes over new ones while the proxy runs, or leaves everything as it is.

What a request meets is made anew from them and put in place at once; what is under way goes on as it began. What
outlives settings (cache, connections, counters) is told of them. What only a new process can have stays, and is named.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from llmpod.cache import Cache
from llmpod.config import FIXED, ProxySettings, changed
from llmpod.errors import LlmpodError
from llmpod.observe import Log
from llmpod.observe.logs import LEVELS
from llmpod.proxy import exposure
from llmpod.proxy.accounts import Accounts, tally_of
from llmpod.proxy.bounds import connections
from llmpod.proxy.demand import Demand
from llmpod.proxy.desk import Desk
from llmpod.proxy.dispatch import Dispatch
from llmpod.proxy.gate import Gate
from llmpod.proxy.hits import Hits
from llmpod.proxy.house import House
from llmpod.proxy.keepalive import Keepalive
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.limits import Limiter
from llmpod.proxy.loading import Lobby
from llmpod.proxy.ops import Ops
from llmpod.proxy.pacer import Pacer
from llmpod.proxy.prewarm import Warmth
from llmpod.proxy.relay import Relay
from llmpod.proxy.room import room_bytes
from llmpod.proxy.sweep import Deadlines
from llmpod.proxy.upstream import Upstream, patience_of


@dataclass(frozen=True, slots=True)
class Cellar:
    """What requests are served from, whatever the settings are."""

    cache: Cache
    keeper: Keeper
    upstream: Upstream
    pacer: Pacer
    dispatch: Dispatch
    demand: Demand
    warmth: Warmth
    accounts: Accounts
    limiter: Limiter
    ops: Ops

    def rooms(self, settings: ProxySettings) -> tuple[Desk, Relay]:
        """What a request meets under these settings."""
        journal, hits = self.ops.journal, Hits(self.cache)
        desk, keepalive = Desk(settings, self.keeper, hits, journal), Keepalive(settings, clock=journal.clock)
        lobby = Lobby(
            settings, self.demand, self.keeper, keepalive=keepalive, warmth=self.warmth, clock=journal.clock
        )
        relay = Relay(
            settings,
            desk,
            hits,
            cache=self.cache,
            keeper=self.keeper,
            dispatch=self.dispatch,
            keepalive=keepalive,
            lobby=lobby,
            limiter=self.limiter,
        )
        return desk, relay

    def adopt(self, settings: ProxySettings) -> None:
        """Go by these settings from now on."""
        self.cache.resize(
            max_entries=settings.max_cache_size,
            max_bytes=settings.max_cache_bytes,
            ttl_seconds=settings.entry_seconds,
        )
        self.demand.adopt(settings)  # before the models of others are gone: it has to tell who waits for them
        self.keeper.adopt(settings)
        self.upstream.adopt(patience_of(settings), plain=settings.allow_plain_http)
        self.pacer.adopt(places=settings.max_queue, patience=settings.queue_seconds)
        self.dispatch.adopt(settings)
        self.warmth.adopt(settings)
        self.accounts.adopt(tally_of(settings))
        self.limiter.adopt(settings)
        self.ops.settings = settings
        if self.ops.memory is not None:
            self.ops.memory.cap = settings.memory_bytes


class Reloader:
    """Looks at the settings when it is told to.

    Args:
        again: reads them anew; raises LlmpodError.
        gate: makes the gate that belongs to them; raises LlmpodError.
        house: what every connection shares; other rooms are put into it.
        cellar: what stays.
        log: told what changed, what cannot, and why nothing did.
    """

    def __init__(
        self,
        again: Callable[[], ProxySettings],
        gate: Callable[[ProxySettings], Gate],
        *,
        house: House,
        cellar: Cellar,
        log: Log,
    ) -> None:
        self._again = again
        self._gate = gate
        self._house = house
        self._cellar = cellar
        self._log = log

    def run(self) -> None:
        """Take over what changed. Never raises: settings that do not serve change nothing (F45)."""
        ops = self._cellar.ops
        try:
            new = self._again()
            names = list(changed(ops.settings, new))
            fixed = [name for name in names if name in FIXED]
            settings = replace(new, **{name: getattr(ops.settings, name) for name in fixed})
            exposure.check(settings, self._log)
            gate = self._gate(settings)
        except LlmpodError as e:
            ops.journal.metrics.config_reload_failed += 1
            ops.config_error = str(e)
            self._log.error("config_unusable", reason=str(e))
            return
        ops.config_error = ""
        self._put_in_place(settings, gate)
        if live := [name for name in names if name not in FIXED]:
            self._log.info("config_read", changed=", ".join(live))
        if fixed:
            self._log.warning("config_needs_restart", settings=", ".join(fixed))

    def _put_in_place(self, settings: ProxySettings, gate: Gate) -> None:
        house = self._house
        self._log.threshold = LEVELS[settings.log_level]
        self._cellar.adopt(settings)
        house.gate = gate
        house.desk, house.relay = self._cellar.rooms(settings)
        house.room.most = room_bytes(settings)
        house.slots.adopt(settings.max_in_flight, settings.max_queue, patience=settings.queue_seconds)
        house.door.adopt(connections(settings.max_connections), settings.max_connections_per_source)
        house.sweep.adopt(Deadlines.of(settings))
        house.sweep.forget()
