"""Not an application: what the edge may answer by itself, before a task exists. The hot path.

Microseconds count here. A request that needs anything but memory goes on to the application by returning None.
"""

from time import perf_counter
from typing import Final

from llmpod.cache import RequestKey
from llmpod.cache.key import AliasTable
from llmpod.config import ProxySettings
from llmpod.errors import BadRequest, LlmpodError, UpstreamInvalid
from llmpod.observe import Journal, Seen
from llmpod.proxy.ask import partition
from llmpod.proxy.guard import serves_type
from llmpod.proxy.headers import Headers
from llmpod.proxy.hits import Hits
from llmpod.proxy.keeper import Keeper

BIG_BODY: Final = 256 * 2**10  # larger ones are parsed in a thread, by the application
ALIASES: Final = 4096
# fields that make a request a case for the application
_NOT_HERE: Final = frozenset({b"cache-control", b"content-encoding", b"x-api-key"})


class Desk:
    """Answers hits from memory at the edge; see :class:`llmpod.proxy.protocol.Desk`."""

    def __init__(self, settings: ProxySettings, keeper: Keeper, hits: Hits, journal: Journal) -> None:
        self.max_header_bytes = settings.max_header_bytes
        self.max_body_bytes = settings.max_body_bytes
        self.keep_alive_seconds = settings.keep_alive_seconds
        self.aliases = AliasTable(ALIASES)
        self._keeper = keeper
        self._hits = hits
        self._journal = journal

    def at_once(self, url: bytes, headers: Headers, body: bytes, client: str) -> bytes | None:
        """The whole answer, counted and noted; None when the application must be asked."""
        started = perf_counter()
        key = self._key(url, headers, body)
        if key is None or not key.cacheable:
            return None
        try:
            found = self._hits.at_once(key)
        except UpstreamInvalid:  # stored frames that cannot be put together: the application asks upstream
            return None
        if found is None:
            return None
        answer, entry = found
        path = url.partition(b"?")[0].decode("latin-1")
        self._journal.add(
            Seen(
                at=self._journal.clock(),
                method="POST",
                path=path,
                status=200,
                cache="HIT",
                reason="stored",
                seconds=perf_counter() - started,
                bytes=len(entry.body),
                model=key.model or "",
                client=client,
            )
        )
        return answer

    def refused(self, error: LlmpodError, cause: BaseException | None) -> None:
        """A request that never became one was turned away; ``cause`` is a bug of ours, if it was one."""
        self._journal.metrics.refused_at_edge += 1
        if cause is not None:
            self._journal.bug(cause)
        else:
            self._journal.log.debug("refused", code=error.code, reason=error.message)

    def _key(self, url: bytes, headers: Headers, body: bytes) -> RequestKey | None:
        destinations = self._keeper.destinations
        if len(body) > BIG_BODY or len(destinations) != 1:
            return None
        content_type = b""
        for name, value in headers:
            if name == b"content-type":
                content_type = value
            elif name in _NOT_HERE:
                return None
        if not serves_type(content_type):
            return None
        destination = destinations[0]
        try:
            return self.aliases.lookup(
                url.decode("latin-1"),
                body,
                partition=partition(headers) if destination.passes_credentials else b"",
                identity=destination.identity,
                content_type=content_type.decode("latin-1"),
            )
        except BadRequest:  # the application says why
            return None
