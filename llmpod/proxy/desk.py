"""Not the way to a model server: what is answered from memory, by itself. The hot path.

Microseconds count here. A request that needs anything but memory is left to the relay.
"""

from time import perf_counter
from typing import Final

from llmpod.cache import RequestKey
from llmpod.cache.key import AliasTable
from llmpod.config import ProxySettings
from llmpod.errors import BadRequest, Forbidden, LlmpodError, UpstreamInvalid
from llmpod.observe import Journal, Seen
from llmpod.proxy.ask import Ask, key_policy
from llmpod.proxy.guard import serves_type
from llmpod.proxy.headers import Headers
from llmpod.proxy.hits import Hits
from llmpod.proxy.keeper import Keeper
from llmpod.proxy.models import NoSuchModel, no_such_model
from llmpod.proxy.route import Destination
from llmpod.proxy.wish import PACE_FIELD, RECORD

BIG_BODY: Final = 256 * 2**10  # larger ones are parsed in a thread
ALIASES: Final = 4096
# fields that make a request a case for the relay
_NOT_HERE: Final = frozenset(
    {b"cache-control", b"content-encoding", b"if-none-match", b"x-api-key", PACE_FIELD}
)


class Desk:
    """Answers hits from memory at the edge; see :class:`llmpod.proxy.protocol.House`."""

    def __init__(self, settings: ProxySettings, keeper: Keeper, hits: Hits, journal: Journal) -> None:
        self.max_header_bytes = settings.max_header_bytes
        self.max_body_bytes = settings.max_body_bytes
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.journal = journal
        self.policy = key_policy(settings)
        self._aliases = AliasTable(ALIASES, policy=self.policy)
        self._serves = settings.cache_mode != RECORD
        self._paced = settings.cache_pace > 0
        self._keeper = keeper
        self._hits = hits

    def at_once(self, ask: Ask) -> bytes | None:
        """The whole answer to a POST, counted and noted; None when the relay must be asked.

        ``ask.key`` is set where it was found out on the way.
        """
        started = perf_counter()
        key = self._key_of(ask)
        if key is None or not key.cacheable or not self._serves or (self._paced and key.stream):
            return None
        try:
            found = self._hits.at_once(key)
        except UpstreamInvalid:  # stored frames that cannot be put together: the relay asks upstream
            return None
        if found is None:
            return None
        answer, entry = found
        journal = self.journal
        size, model, spent = len(entry.body), key.model or "", perf_counter() - started
        journal.add(
            Seen(journal.clock(), "POST", ask.path, 200, "HIT", "stored", spent, size, model, ask.client)
        )
        return answer

    def key(self, ask: Ask, destination: Destination) -> RequestKey:
        """The key of a POST. Raises BadRequest, and what ``check_model`` does."""
        if ask.key is None:
            ask.key = self._aliases.lookup(
                ask.target.decode("latin-1"),
                ask.body,
                partition=ask.owner(passes_credentials=destination.passes_credentials),
                identity=destination.identity,
                content_type=ask.content_type,
            )
        check_model(ask, ask.key, destination)
        return ask.key

    def refused(self, error: LlmpodError, cause: BaseException | None) -> None:
        """A request that never became one was turned away; ``cause`` is a bug of ours, if it was one."""
        self.journal.metrics.refused_at_edge += 1
        if cause is not None:
            self.journal.bug(cause)
        else:
            self.journal.log.debug("refused", code=error.code, reason=error.message)

    def _key_of(self, ask: Ask) -> RequestKey | None:
        destinations = self._keeper.destinations
        if len(ask.body) > BIG_BODY or len(destinations) != 1 or not destinations[0].plain:
            return None
        facts = ask.facts
        if facts.plain is None:
            facts.plain = _is_plain(ask.headers)
        if not facts.plain:
            return None
        try:
            return self.key(ask, destinations[0])
        except (BadRequest, Forbidden, NoSuchModel):  # the relay says why
            return None


def _is_plain(headers: Headers) -> bool:
    """Whether nothing in a header makes its request a case for the relay."""
    content_type = b""
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name in _NOT_HERE:
            return False
    return serves_type(content_type)


def check_model(ask: Ask, key: RequestKey, destination: Destination) -> None:
    """Whether a request may go on to its model.

    Raises:
        NoSuchModel: the only model there is has other names (of several, one was found by its name).
        Forbidden: the caller's key is not for the model that is asked for, by any of its names.
    """
    if key.model and destination.route is None and not destination.takes(key.model):
        raise no_such_model(key.model, (destination,))
    names = destination.names if destination.route is not None else ()
    if ask.leave.models and not {key.model, *names}.intersection(ask.leave.models):
        raise Forbidden(
            "This key may not ask for this model.", hint=f"It may: {', '.join(ask.leave.models)}."
        )
