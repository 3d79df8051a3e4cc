"""Not a maker of certificates (cli/tls.py): the server's side of TLS, and what becomes of it while it runs.

A renewed certificate is taken over for the connections that come after; those that are open keep theirs.
"""

import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from llmpod.config import ProxySettings, expires_at
from llmpod.errors import ConfigError
from llmpod.observe import Log

# TLS 1.2 suites that are left: ECDHE with AEAD; those of TLS 1.3 are all of that kind (Mozilla "intermediate")
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
WARN_DAYS: Final = 14
DAY: Final = 24 * 3600.0
LOOK_SECONDS: Final = 5.0
Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """Certificate and key of the server, followed while it runs.

    Args:
        cert: file of the certificate and its chain.
        key: file of its private key.
        log: told of renewals, of files that do not serve (the old ones stay, F54), and of an end that is near.
        clock: seconds since the epoch.

    Raises:
        ConfigError: the files do not serve.
    """

    def __init__(self, cert: Path, key: Path, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self._files = (cert, key)
        self._log = log
        self._clock = clock
        self._warned_at = float("-inf")
        self._looked_at = clock()
        self._unusable = ""
        self._stamp = self._look()
        self.context = _context(*self._files)
        self._warn()

    @classmethod
    def of(cls, settings: ProxySettings, log: Log) -> "Certificates | None":
        """What the settings name; None for plain HTTP. Raises ConfigError."""
        if not settings.use_https:
            return None
        if settings.ssl_cert is None or settings.ssl_key is None:
            raise ConfigError("USE_HTTPS needs SSL_CERT and SSL_KEY.")
        return cls(settings.ssl_cert, settings.ssl_key, log)

    def refresh(self, *, now: bool = False) -> None:
        """Take over what changed; looks every few seconds, or ``now``."""
        at = self._clock()
        if at - self._looked_at < LOOK_SECONDS and not now:
            return
        self._looked_at = at
        self._warn()
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            _context(*self._files)  # a pair that does not belong together must not spoil the one in use
            _load(self.context, *self._files)
        except ConfigError as e:
            self._unusable = str(e)
            self._log.error("certificate_unusable", reason=self._unusable)
            return
        self._unusable = ""
        self._warned_at = float("-inf")
        self._log.info("certificate_read", file=self._files[0])

    def alarms(self) -> Iterator[str]:
        """What a person should know: new files that do not serve, an end that is near."""
        if self._unusable:
            yield f"{self._unusable} The one before it serves on."
        if (days := self._days_left()) is not None and days < WARN_DAYS:
            yield f"The certificate {self._files[0]} expires in {days:.1f} days."

    def _days_left(self) -> float | None:
        end = expires_at(self._files[0])
        return None if end is None else (end - self._clock()) / DAY

    def _warn(self) -> None:
        """Once a day, from two weeks before the end on."""
        now, days = self._clock(), self._days_left()
        if days is not None and days < WARN_DAYS and now - self._warned_at >= DAY:
            self._warned_at = now
            self._log.warning("certificate_expires", file=self._files[0], days=round(days, 1))

    def _look(self) -> Stamp:
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return ()
        return tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in found)


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3, authenticated encryption with forward secrecy only. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    _load(context, cert, key)
    return context


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"The certificate {cert} with the key {key} cannot be used: {e}.") from None
