"""Not a parser and not a limiter: who may come in. Every request head passes here before anything else sees it.

In this order: the name it is for, the page it comes from, the address it asks, the credential it brings. A refusal
tells as little as it can, and the body of a refused request is never read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from llmpod.config import Auth, CallerKey, ProxySettings, Scope
from llmpod.errors import Forbidden, Overloaded, Unauthorized
from llmpod.observe import Log
from llmpod.proxy import peer
from llmpod.proxy.access import Need, need
from llmpod.proxy.ask import OPEN, Leave
from llmpod.proxy.browser import Pages
from llmpod.proxy.headers import SECRETS, Headers
from llmpod.proxy.keyring import Keyring
from llmpod.proxy.peer import Ends

GUESSES_PER_SECOND: Final = 10.0  # wrong keys from one address before it is told to wait (T29)
MAX_GUESSERS: Final = 1024


class TooManyGuesses(Overloaded):
    """Too many wrong keys from one address."""

    status: ClassVar[int] = 429
    type: ClassVar[str] = "rate_limit_error"
    code: ClassVar[str] = "too_many_wrong_keys"


@dataclass(slots=True)
class Visitor:
    """The other end of one connection, and what the gate found out about it.

    ``same_user`` is asked of the kernel once a connection, when it matters first.
    """

    ends: Ends
    tls: bool = False
    same_user: bool | None = None


class Gate:
    """Lets requests in, or raises.

    Args:
        settings: which names, pages and callers are welcome.
        own: digests of the keys of our own programs, by name.
        log: told of a file of keys that cannot be read.
        clock: monotonic seconds, for counting wrong keys.

    Raises:
        ConfigError: the file of keys cannot be used.
    """

    def __init__(
        self, settings: ProxySettings, log: Log, *, own: Mapping[str, str], clock: Callable[[], float]
    ) -> None:
        self._auth = settings.auth
        self._pages = Pages(
            hosts=frozenset(name.lower().encode() for name in (*settings.allowed_hosts, settings.host)),
            origins=frozenset(origin.encode() for origin in settings.cors_origins),
        )
        self.keyring: Keyring | None = None
        if self._auth is Auth.KEYS and settings.keys_file is not None:
            self.keyring = Keyring(settings.keys_file, log, own=own)
        self._clock = clock
        self._guesses: dict[str, tuple[float, float]] = {}

    @property
    def version(self) -> int:
        """Changes when what was allowed before must be asked again."""
        return self.keyring.version if self.keyring is not None else 0

    def admit(self, method: str, path: str, headers: Headers, visitor: Visitor) -> Leave:
        """What a request may do; a key of ours is taken out of ``headers``, for it is no server's business.

        Args:
            method: upper case.
            path: as received, without query.
            headers: lower-case names.
            visitor: who sent it.

        Raises:
            Misdirected, Forbidden, NotRouted, Unauthorized, TwoCredentials, TooManyGuesses: it may not.
        """
        fields = tuple(self._pages.check(headers, local=visitor.ends.local, tls=visitor.tls))
        if method == "OPTIONS":  # a preflight carries no credential, by its nature (Fetch 4.8)
            return Leave(fields=fields)
        wanted = need(method, path)
        if self._auth is Auth.OPEN:
            return Leave(fields=fields) if fields else OPEN
        if self._auth is Auth.SAME_USER:
            return Leave(fields=fields, anonymous=not self._is_user(wanted, visitor))
        return self._with_key(wanted, headers, visitor, fields)

    def _is_user(self, wanted: Need, visitor: Visitor) -> bool:
        """Whether our own user asks. Raises Forbidden when another one does, for what is not for everybody."""
        if visitor.same_user is None:
            visitor.same_user = peer.is_same_user(visitor.ends)
        if not visitor.same_user and wanted is not Need.NOTHING:
            raise Forbidden("Only programs of the user who runs this proxy may use it.")
        return visitor.same_user

    def _with_key(
        self, wanted: Need, headers: Headers, visitor: Visitor, fields: tuple[tuple[bytes, bytes], ...]
    ) -> Leave:
        anonymous = Leave(fields=fields, anonymous=True)
        if wanted is Need.NOTHING and not any(name in SECRETS for name, _ in headers):
            return anonymous
        try:
            key = self._key(headers, visitor.ends.client)
        except (Unauthorized, TooManyGuesses):
            if wanted is Need.NOTHING:  # supervisors get their answer, whatever they send along
                return anonymous
            raise
        if wanted is not Need.NOTHING and not _allows(key, wanted):
            raise Forbidden(f"This key may not do that here; it lacks the scope `{wanted}`.")
        headers[:] = [item for item in headers if item[0] not in SECRETS]
        return Leave(key.id, key.models, fields, key)

    def _key(self, headers: Headers, client: str) -> CallerKey:
        """Raises Unauthorized, TwoCredentials, TooManyGuesses."""
        assert self.keyring is not None
        try:
            return self.keyring.find(headers)
        except Unauthorized:
            self._count_guess(peer.source_of(client))
            raise

    def _count_guess(self, source: str) -> None:
        """A wrong key came. Raises TooManyGuesses when that is too much; a right one is never held up by them."""
        now = self._clock()
        left, at = self._guesses.pop(source, (GUESSES_PER_SECOND, now))
        left = min(GUESSES_PER_SECOND, left + (now - at) * GUESSES_PER_SECOND) - 1.0
        while len(self._guesses) >= MAX_GUESSERS:
            del self._guesses[next(iter(self._guesses))]
        self._guesses[source] = (max(left, 0.0), now)
        if left < 0.0:
            raise TooManyGuesses("Too many wrong keys came from your address.", retry_after=1)


def _allows(key: CallerKey, wanted: Need) -> bool:
    return Scope.ADMIN in key.scopes or Scope(wanted.value) in key.scopes
