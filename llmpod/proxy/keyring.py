"""Not the file of keys: says whose key a request carries, in constant time, and when that stops being true."""

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Final

from llmpod.config import CallerKey, Scope, digest_of, read_keys
from llmpod.errors import BadRequest, ConfigError, Unauthorized
from llmpod.observe import Log
from llmpod.proxy.headers import SECRETS

LOOK_SECONDS: Final = 1.0


class TwoCredentials(BadRequest):
    """The request carries two keys; which one is meant is not for us to guess, nor for whoever reads it after us."""

    code: ClassVar[str] = "two_credentials"


class Keyring:
    """The keys of one file, followed while the proxy runs.

    Args:
        path: ``keys.json``.
        own: digests of the keys with which our own programs call, by their names; they may do anything.
        log: told when the file cannot be used; the keys that were known stay (F54).
        clock: seconds since the epoch.

    Attributes:
        trouble: why the file as it is now is not in force; empty when it is.
        version: another one whenever a key came, went or expired: what was allowed before must be asked again.

    Raises:
        ConfigError: the file cannot be used at the start.
    """

    def __init__(
        self, path: Path, log: Log, *, own: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._own = [CallerKey(name, name, digest, (Scope.ADMIN,)) for name, digest in own.items() if digest]
        self._log = log
        self._clock = clock
        self.version = 0
        self.trouble = ""
        self._stamp = self._look()
        self._looked_at = clock()
        self._keys = read_keys(path)

    def refresh(self, *, now: bool = False) -> None:
        """Read the file again if it changed; called from the sweep, at most once a second unless ``now``."""
        at = self._clock()
        if at - self._looked_at < LOOK_SECONDS and not now:
            return
        if any(key.expires is not None and self._looked_at < key.expires <= at for key in self._keys):
            self.version += 1
        self._looked_at = at
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigError as e:
            self.trouble = str(e)
            self._log.error("keys_unreadable", reason=self.trouble)
            return
        self.trouble = ""
        self.version += 1
        self._log.info("keys_read", keys=len(self._keys))

    def find(self, headers: Iterable[tuple[bytes, bytes]]) -> CallerKey:
        """The key that a request carries.

        Args:
            headers: lower-case names.

        Raises:
            TwoCredentials: more than one, be they equal.
            Unauthorized: none, an unknown or an expired one.
        """
        given = credentials(headers)
        if len(given) > 1:
            raise TwoCredentials(
                "The request carries more than one key.", hint="Send one, as `Authorization: Bearer`."
            )
        if not given:
            raise Unauthorized("This address needs a key.", hint="Send it as `Authorization: Bearer KEY`.")
        digest = digest_of(given.pop())
        found: CallerKey | None = None
        for key in (*self._own, *self._keys):  # every one is compared, so that time tells nothing
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized("This key is not known here.", hint="See `manage_pod.py keys list`.")
        if found.expires is not None and found.expires <= self._clock():
            raise Unauthorized(
                "This key has expired.", hint="Run `manage_pod.py keys rotate NAME --expires 30d`."
            )
        return found

    def _look(self) -> tuple[int, int, int]:
        try:
            status = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (status.st_mtime_ns, status.st_size, status.st_ino)


def credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The secrets in a request, in whichever of the usual fields; a password is what Basic brings."""
    found = []
    for name, value in headers:
        if name in SECRETS:
            text = value.decode("latin-1").strip()
            found.append(_secret_of(text) if name == b"authorization" else text)
    return [secret for secret in found if secret]


def _secret_of(value: str) -> str:
    """The secret in an Authorization field (RFC 6750, RFC 7617); whatever it is, when its scheme is unknown."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() != "basic":
        return value
    try:
        user, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return value
    return password or user
