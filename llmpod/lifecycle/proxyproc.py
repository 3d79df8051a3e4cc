"""Not the proxy: starts it as a process of its own, finds it again, replaces it when it is unwell, ends it.

A process is known by pid, start time and boot, never by name. One that was started by a pass that died before
it could write that down is recognised by a token that only our children carry in their environment.
"""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llmpod.config import reached_at
from llmpod.errors import LlmpodError, PortTaken
from llmpod.identity import process_id
from llmpod.lifecycle.ports import owner
from llmpod.lifecycle.state import ProxyRecord, SaveProxy
from llmpod.lifecycle.store import Store
from llmpod.model import ProcessId

# Nothing else of a caller's environment reaches the proxy: above all not the cloud key.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")
START_SECONDS = 15.0
STOP_SECONDS = 10.0
_LOG_BYTES = 10 * 2**20
TOKEN = "LLMPOD_PROXY_TOKEN"  # noqa: S105 - the name of a variable
EXIT_PORT_TAKEN = 98


class ProxyProcess:
    """The proxy of one installation.

    Args:
        store: where its token and log file are.
        script: ``proxy_fastapi.py``.
        environ: its whole environment, secrets of the cloud not included.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        store: Store,
        script: Path,
        environ: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._script = script
        self._token = hashlib.sha256(store.pod_key("proxy").reveal().encode()).hexdigest()[:32]
        self._environ = {**environ, TOKEN: self._token}
        self._clock = clock
        self.port = int(environ["PORT"])
        self._certificate = environ["SSL_CERT"] if environ.get("USE_HTTPS") == "true" else None
        self._host = reached_at(environ.get("LLMPOD_HOST", ""))
        self.url = f"{'https' if self._certificate else 'http'}://{self._host}:{self.port}"

    @property
    def digest(self) -> str:
        """Names these settings, so that a changed configuration replaces the proxy.

        Not what it inherits: cron and a terminal have different paths, and each would cut the other's streams.
        """
        settings = sorted(item for item in self._environ.items() if item[0] not in INHERITED)
        content = json.dumps([str(self._script), sys.executable, settings])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def ensure(self, record: ProxyRecord | None, *, save: SaveProxy) -> str:
        """Make sure that a healthy proxy with these settings runs.

        Args:
            record: what we remember of it.
            save: called with the new record as soon as a new process exists.

        Returns:
            What was done, for people; empty when nothing was to do.

        Raises:
            PortTaken: somebody else listens on the port.
            LlmpodError: it does not start; the message holds the end of its log.
        """
        alive = record is not None and process_id(record.process.pid) == record.process
        if record and alive and record.settings_digest == self.digest and self._healthy():
            return ""
        found = record.process if record and alive else self._unrecorded()
        if found is not None:
            stop(found)
        self._spawn(save)
        why = "was unwell or its settings changed" if found else "was not running"
        return f"proxy started on {self.url} (it {why})"

    def end(self, record: ProxyRecord | None) -> bool:
        """Stop the proxy gracefully, then by force. Returns whether there was one."""
        alive = record is not None and process_id(record.process.pid) == record.process
        found = record.process if record and alive else self._unrecorded()
        if found is None:
            return False
        stop(found)
        return True

    def _healthy(self) -> bool:
        """Three tries, so that one slow moment under load does not cost a restart."""
        return any(self._identity(2.0) is not None for _ in range(3))

    def _identity(self, timeout: float) -> int | None:
        """The pid that answers on our port with our token, else None."""
        connection = http.client.HTTPConnection(self._host, self.port, timeout=timeout)
        try:
            if self._certificate:  # a missing or bad file means "not healthy"; the proxy itself says why
                connection = http.client.HTTPSConnection(
                    self._host, self.port, timeout=timeout, context=_pinned(self._certificate)
                )
            connection.request("GET", "/health")
            body = json.loads(connection.getresponse().read(2**20))
            return int(body["pid"]) if body.get("instance") == self._token else None
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
            return None
        finally:
            connection.close()

    def _unrecorded(self) -> ProcessId | None:
        """A proxy of ours that a killed pass did not write down, also while it does not answer yet."""
        candidates = [int(p.name) for p in Path("/proc").glob("[0-9]*")] or [self._identity(1.0) or 0]
        mine = (pid for pid in candidates if pid and self._is_ours(pid))
        return next((identity for pid in mine if (identity := process_id(pid))), None)

    def _is_ours(self, pid: int) -> bool:
        """Runs our script with our token in its environment, which only its own user can read (proc(5))."""
        process = Path(f"/proc/{pid}")
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return not Path("/proc/self").exists()  # macOS: the token in its answer was the proof
        return str(self._script).encode() in words and f"{TOKEN}={self._token}".encode() in variables

    def _spawn(self, save: SaveProxy) -> None:
        """Start it, write it down before it answers, and wait until it does."""
        child = self._popen()
        child.returncode = 0  # detached on purpose: it outlives this pass, and Popen would warn of that
        identity = process_id(child.pid) or ProcessId(child.pid, 0, "")
        save(ProxyRecord(identity, self.port, self._token, self.digest, time.time()))
        self._await(identity)

    def _popen(self) -> "subprocess.Popen[bytes]":
        if self._store.log_file.exists() and self._store.log_file.stat().st_size > _LOG_BYTES:
            self._store.log_file.replace(self._store.log_file.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(self._store.log_file, flags, 0o600)
        try:
            return subprocess.Popen(
                [sys.executable, str(self._script)],
                env=self._environ,
                cwd=self._store.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)

    def _await(self, process: ProcessId) -> None:
        limit = self._clock() + START_SECONDS
        while self._identity(1.0) != process.pid:
            if (code := _exit_code(process)) is not None:
                raise self._start_failure(code)
            if self._clock() > limit:
                stop(process)
                raise LlmpodError(
                    f"The proxy did not answer within {START_SECONDS:.0f} s.",
                    hint=f"Read {self._store.log_file}.",
                )
            time.sleep(0.02)

    def _start_failure(self, code: int) -> LlmpodError:
        if code == EXIT_PORT_TAKEN:
            return PortTaken(
                f"Port {self.port} is in use by {owner(self.port)}; no pod was started.",
                hint="Stop that program or set another `proxy_port`.",
            )
        tail = self._store.log_file.read_text(encoding="utf-8", errors="replace")[-600:].strip()
        return LlmpodError(f"The proxy ended at once (exit code {code}): {tail}")


def _pinned(certificate: str) -> ssl.SSLContext:
    """Trust this one certificate for whatever name and time it bears: it is our own proxy's, on loopback."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    no_check_time = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; an expired certificate is no reason to restart
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | no_check_time
    return context


def stop(process: ProcessId, *, clock: Callable[[], float] = time.monotonic) -> None:
    """SIGTERM, at most 10 s of grace, SIGKILL; only ever to this very process, not to a successor of its pid."""
    for sign, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 5.0)):
        if not _signal(process, sign):
            return
        limit = clock() + patience
        while clock() < limit:
            if _ended(process):
                return
            time.sleep(0.02)


def _exit_code(process: ProcessId) -> int | None:
    """The exit code of a child that has ended, -1 when another process reaped it, None while it runs."""
    with contextlib.suppress(ChildProcessError):
        pid, status = os.waitpid(process.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    return -1 if process_id(process.pid) != process else None


def _ended(process: ProcessId) -> bool:
    return _exit_code(process) is not None or process_id(process.pid) != process


def _signal(process: ProcessId, sign: signal.Signals) -> bool:
    """Signal through a pidfd where there is one: it cannot reach a stranger that got the pid meanwhile."""
    try:
        if not hasattr(os, "pidfd_open"):
            return _signal_checked(process, sign)
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if process_id(process.pid) != process:
            return False
        signal.pidfd_send_signal(fd, sign)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)


def _signal_checked(process: ProcessId, sign: signal.Signals) -> bool:
    if process_id(process.pid) != process:
        return False
    os.kill(process.pid, sign)
    return True
