"""Not the proxy and not its warden: starts both as processes of their own, finds them again, replaces and ends them.

A process is known by pid, start time and boot, never by name. One that was started by a pass that died before
it could write that down is recognised by a token that only our children carry in their environment. What is written
down is the warden (``proxy_warden.py``), which starts a proxy anew that crashes. The proxy's settings are a file of
ours; most of them a running proxy takes over when it is told to look (SIGHUP).
"""

import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from llmpod.config import SETTINGS_VARIABLE, needs_restart, reached_at, settings_digest
from llmpod.errors import LlmpodError, ProxyCrashed
from llmpod.identity import process_id
from llmpod.lifecycle import files, ports, proxy_warden
from llmpod.lifecycle.state import ProxyRecord, SaveProxy
from llmpod.lifecycle.stopping import exit_code, send, stop
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.supervision import NOTES, Notes, read_notes
from llmpod.model import ProcessId

# Nothing else of a caller's environment reaches the proxy: above all not the cloud key.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")
START_SECONDS = 15.0
HEALTH_SECONDS = 6.0  # so that a slow moment, or a start after a crash, does not cost a restart
RELOAD_SECONDS = 5.0
STOP_SECONDS = 12.0  # the warden gives the proxy most of it
TOKEN = "LLMPOD_PROXY_TOKEN"  # noqa: S105 - the name of a variable
EXIT_PORT_TAKEN = 98


@dataclass(frozen=True, slots=True)
class _Answer:
    """What ``/health`` says of the process that gives it."""

    pid: int
    parent: int
    settings: str


class ProxyProcess:
    """The proxy of one installation.

    Args:
        store: where its token, settings and log file are.
        script: ``proxy_fastapi.py``.
        environ: what it inherits, and its settings as variables; secrets of the cloud are not among them.
        clock: monotonic seconds.
        wall: epoch seconds.
    """

    def __init__(
        self,
        store: Store,
        script: Path,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._script = script
        self._token = hashlib.sha256(store.pod_key("proxy").reveal().encode()).hexdigest()[:32]
        self._inherited = {name: value for name, value in environ.items() if name in INHERITED}
        self._values = {name: value for name, value in environ.items() if name not in INHERITED}
        self._text = json.dumps(self._values, indent=1, sort_keys=True) + "\n"
        self._settings_file = store.directory / "proxy_settings.json"
        self._clock = clock
        self._wall = wall
        self.port = int(environ["PORT"])
        self._certificate = environ["SSL_CERT"] if environ.get("USE_HTTPS") == "true" else None
        self._host = reached_at(environ.get("LLMPOD_HOST", ""))
        self.url = f"{'https' if self._certificate else 'http'}://{self._host}:{self.port}"

    @property
    def digest(self) -> str:
        """Names what a running proxy cannot change: another one replaces it.

        Not what it inherits: cron and a terminal have different paths, and each would cut the other's streams.
        """
        fixed = sorted(item for item in self._values.items() if needs_restart(item[0]))
        content = json.dumps([str(self._script), sys.executable, fixed])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def notes(self) -> Notes | None:
        """What the warden noted last."""
        return read_notes(self._store.directory)

    @property
    def exists(self) -> bool:
        """Whether a process of this proxy runs, well or not."""
        return next(self._strays(), None) is not None

    def ensure(self, record: ProxyRecord | None, *, save: SaveProxy) -> str:
        """Make sure that a healthy proxy with these settings runs, and somebody who starts it anew.

        Args:
            record: what we remember of it.
            save: called with the new record as soon as a new process exists.

        Returns:
            What was done, for people; empty when nothing was to do.

        Raises:
            PortTaken: somebody else listens on the port.
            ProxyCrashed: it crashes again and again, and is not tried again yet.
            LlmpodError: it does not start; the message holds the end of its log.
        """
        warden = _alive(record)
        if record and warden and record.settings_digest == self.digest:
            answer = self._healthy(warden)
            if answer is not None and answer.settings == settings_digest(self._text):
                return ""
            if answer is not None and self._reload(warden):
                return "proxy took over changed settings"
        elif record is None or record.settings_digest == self.digest:  # other settings may be the cure
            self._check_rest()
        found = self._end(warden)
        self._spawn(save)
        why = "was unwell or its settings changed" if found else "was not running"
        return f"proxy started on {self.url} (it {why})"

    def end(self, record: ProxyRecord | None) -> bool:
        """Stop the proxy gracefully, then by force. Returns whether there was one."""
        found = self._end(_alive(record))
        with suppress(OSError):  # who ends it by hand may start it at once, however often it crashed
            (self._store.directory / NOTES).unlink(missing_ok=True)
        return found

    def _check_rest(self) -> None:
        """Raises ProxyCrashed while a proxy that was given up is not to be tried again."""
        notes = self.notes
        if notes is not None and (left := notes.resting(self._wall())):
            raise ProxyCrashed(
                f"The proxy crashed {proxy_warden.MAX_CRASHES} times within a minute ({notes.last_crash})"
                f" and is tried again in {left:.0f} s.",
                hint=f"Read {self._store.log_file}; `--shutdown` and then `up` tries it at once.",
            )

    def _healthy(self, warden: ProcessId) -> _Answer | None:
        """What the proxy under this warden says; None when it says nothing for too long, or it is another one's."""
        limit = self._clock() + HEALTH_SECONDS
        while (answer := self._ask(2.0)) is None and self._clock() < limit:
            time.sleep(0.05)
        return answer if answer is not None and answer.parent == warden.pid else None

    def _reload(self, warden: ProcessId) -> bool:
        """Hand the proxy its new settings; False when it did not take them."""
        self._write_settings()
        if not send(warden, signal.SIGHUP):
            return False
        wanted, limit = settings_digest(self._text), self._clock() + RELOAD_SECONDS
        while (answer := self._ask(2.0)) is None or answer.settings != wanted:
            if self._clock() > limit:
                return False
            time.sleep(0.02)
        return True

    def _ask(self, timeout: float) -> _Answer | None:
        """What answers on our port with our token, else None."""
        connection = http.client.HTTPConnection(self._host, self.port, timeout=timeout)
        try:
            if self._certificate:  # a missing or bad file means "not healthy"; the proxy itself says why
                connection = http.client.HTTPSConnection(
                    self._host, self.port, timeout=timeout, context=_pinned(self._certificate)
                )
            connection.request("GET", "/health")
            body = json.loads(connection.getresponse().read(2**20))
            answer = _Answer(int(body["pid"]), int(body.get("parent", 0)), str(body.get("settings", "")))
            ours = body.get("instance") == self._token  # an id that /health tells everybody
            return answer if ours else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
            return None
        finally:
            connection.close()

    # --- ending -------------------------------------------------------------------------------------------------
    def _end(self, warden: ProcessId | None) -> bool:
        """End the proxy by its warden; then what has none, or outlived it."""
        found = False
        for process in filter(None, (warden, *self._strays())):
            found = True
            stop(process, patience=STOP_SECONDS)
        return found

    def _strays(self) -> Iterator[ProcessId]:
        """Of ours, wardens first, whether anybody wrote them down or they answer, or not."""
        answer = None if Path("/proc/self").exists() else self._ask(1.0)
        known = (answer.parent, answer.pid) if answer else ()
        seen = [int(p.name) for p in Path("/proc").glob("[0-9]*")] or list(known)
        kinds = {pid: kind for pid in seen if pid > 1 and (kind := self._kind(pid))}
        for pid in sorted(kinds, key=lambda pid: kinds[pid] != "warden"):
            if (identity := process_id(pid)) is not None:
                yield identity

    def _kind(self, pid: int) -> str:
        """What of ours a process is, by the token in its environment, which only its own user can read (proc(5))."""
        process = Path(f"/proc/{pid}")
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # macOS: the token in its answer was the proof
            return "" if Path("/proc/self").exists() else "proxy"
        if str(self._script).encode() not in words or f"{TOKEN}={self._token}".encode() not in variables:
            return ""
        return "warden" if proxy_warden.__file__.encode() in words else "proxy"

    # --- starting -----------------------------------------------------------------------------------------------
    def _spawn(self, save: SaveProxy) -> None:
        """Start it, write it down before it answers, and wait until it does."""
        self._write_settings()
        with suppress(OSError):
            (self._store.directory / NOTES).unlink(missing_ok=True)
        child = self._popen()
        child.returncode = 0  # detached on purpose: it outlives this pass, and Popen would warn of that
        identity = process_id(child.pid) or ProcessId(child.pid, 0, "")
        save(ProxyRecord(identity, self.port, self._token, self.digest, self._wall()))
        self._await(identity)

    def _write_settings(self) -> None:
        """Raises StateError: the disk refuses."""
        files.write_atomic(self._settings_file, self._text)

    def _popen(self) -> "subprocess.Popen[bytes]":
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(self._store.log_file, flags, 0o600)
        own = {TOKEN: self._token, SETTINGS_VARIABLE: str(self._settings_file), "PYTHONUNBUFFERED": "1"}
        warden = [sys.executable, "-I", "-S", proxy_warden.__file__]
        files_of_it = [str(self._store.directory / NOTES), str(self._store.log_file)]
        try:
            return subprocess.Popen(
                [*warden, *files_of_it, sys.executable, str(self._script)],
                env=self._inherited | own,
                cwd=self._store.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _await(self, warden: ProcessId) -> None:
        limit = self._clock() + START_SECONDS
        while (answer := self._ask(1.0)) is None or answer.parent != warden.pid:
            if (code := exit_code(warden)) is not None:
                raise self._start_failure(code)
            notes = self.notes
            if notes is not None and notes.warden == warden.pid and notes.last_crash is not None:
                stop(warden)
                raise self._start_failure(notes.last_crash.code)
            if self._clock() > limit:
                self._end(warden)
                raise LlmpodError(
                    f"The proxy did not answer within {START_SECONDS:.0f} s.",
                    hint=f"Read {self._store.log_file}.",
                )
            time.sleep(0.02)

    def _start_failure(self, code: int) -> LlmpodError:
        if code == EXIT_PORT_TAKEN:
            return ports.taken(self.port)
        text = self._store.log_file.read_text(encoding="utf-8", errors="replace")
        tail = self._store.veil.mask(text)[-600:].strip()  # half a secret would not be known for one
        return LlmpodError(f"The proxy ended at once (exit code {code}): {tail}")


def _alive(record: ProxyRecord | None) -> ProcessId | None:
    alive = record is not None and process_id(record.process.pid) == record.process
    return record.process if record is not None and alive else None


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trust this one certificate for whatever name and time it bears: it is our own proxy's, on loopback."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    no_check_time = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; an expired certificate is no reason to restart
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | no_check_time
    return context
