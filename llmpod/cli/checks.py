"""Not a mender: what one finding of ``doctor`` is, and what the checks have to look at."""

import errno
import os
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from llmpod import config as configuration
from llmpod.cli.command import Invocation
from llmpod.cli.scheduled import manage
from llmpod.cli.wiring import HOME
from llmpod.config import Config
from llmpod.errors import ConfigError, StateError
from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store

UPDATE = f"git -C {shlex.quote(str(HOME))} pull && make -C {shlex.quote(str(HOME))} install"


class Status(StrEnum):
    """How bad a finding is; only a problem makes ``doctor`` exit with 1."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Args:
        name: what was looked at; stable.
        status: how bad it is.
        found: what was seen, for a person; never a secret.
        mend: a command to type, empty when nothing is wrong.
    """

    name: str
    status: Status
    found: str
    mend: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ok(name: str, found: str) -> Check:
    """Nothing to do."""
    return Check(name, Status.OK, found)


def warning(name: str, found: str, mend: str) -> Check:
    """Works, but may hurt."""
    return Check(name, Status.WARNING, found, mend)


def problem(name: str, found: str, mend: str) -> Check:
    """Does not work, or is not safe."""
    return Check(name, Status.PROBLEM, found, mend)


def worst(checks: Iterable[Check]) -> Status:
    """The worst status among them."""
    found = {check.status for check in checks}
    return next((s for s in (Status.PROBLEM, Status.WARNING) if s in found), Status.OK)


@dataclass(frozen=True, slots=True)
class Site:
    """The installation under examination, as far as it can be opened.

    Args:
        call: the call of ``doctor``.
        config: the configuration; of a wrong one, what is readable.
        config_error: what is wrong with it.
        store: its files, or None when their directory cannot be used.
        state: what the state file says, or None when that cannot be known.
        clock: epoch seconds.
    """

    call: Invocation
    config: Config
    config_error: ConfigError | None
    store: Store | None
    state: State | None
    clock: Callable[[], float] = time.time

    def manage(self, words: str = "") -> str:
        """A call of this program as a command to type."""
        return manage(self.call, words)

    @property
    def edit(self) -> str:
        """The command that opens the configuration."""
        return f"${{EDITOR:-vi}} {shlex.quote(str(self.config.path))}"

    @property
    def directory(self) -> Path:
        """Where the installation's own files are."""
        state_file = self.config.state_file
        return state_file.parent / ".llmpod" / state_file.stem


def site(call: Invocation, look: Callable[[Path], Check]) -> tuple[Site, Check]:
    """Open what can be opened; nothing here fails.

    Args:
        call: the call of ``doctor``.
        look: judges the directory of our files. It comes first, and one with a problem is not opened: opening
            would set its mode, and the finding would be gone before anybody read it.
    """
    error = None
    try:
        loaded = configuration.load(call.config_path, call.environ)
    except ConfigError as e:
        loaded, error = configuration.salvage(call.config_path, call.environ), e
    found = Site(call, loaded, error, store=None, state=None)
    directory = look(found.directory)
    if directory.status is Status.PROBLEM:
        return found, directory
    with suppress(StateError):  # the checks of the files say what is wrong with them
        found = replace(found, store=Store(loaded.state_file))
        found = replace(found, state=found.store.load() if found.store else None)
    return found, directory


# --- files and directories, as several checks look at them ----------------------------------------------------------
def ownership(name: str, path: Path, *, mode: int) -> Check | None:
    """What is wrong with the owner or mode of something that must be this user's alone; None: nothing.

    Args:
        name: of the check.
        path: an existing file or directory; a link is not followed.
        mode: what it should be, for the mend.
    """
    info, quoted = path.lstat(), shlex.quote(str(path))
    if stat.S_ISLNK(info.st_mode):
        return problem(name, f"{path} is a symbolic link", f"mv {quoted} {quoted}.old")
    if info.st_uid != os.geteuid():
        return problem(
            name, f"{path} belongs to user {info.st_uid}, not to us", f'sudo chown -R "$(id -u)" {quoted}'
        )
    if info.st_mode & 0o077:
        seen = stat.S_IMODE(info.st_mode)
        return problem(name, f"others may use {path} (mode {seen:04o})", f"chmod {mode:o} {quoted}")
    return None


def write_trouble(directory: Path) -> OSError | None:
    """Why a small file cannot be written there; None when it can. Permissions alone do not tell (full, read-only)."""
    probe = directory / f".llmpod-doctor.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, bytes(8192)) < 8192:
                return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
            probe.unlink()
    except OSError as e:
        return e
    return None


def write_mend(directory: Path, trouble: OSError) -> str:
    """The command that helps against it."""
    quoted = shlex.quote(str(directory))
    if trouble.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"df -h {quoted}   # and make room there"
    if trouble.errno == errno.ENOENT:
        return f"mkdir -p -m 700 {quoted}"
    if trouble.errno == errno.EROFS:
        return f"findmnt -T {quoted}   # it is mounted read-only"
    if trouble.errno == errno.ENOTDIR:
        return f"ls -ld {quoted}   # a file is in the way; move it"
    return f'sudo chown -R "$(id -u)" {quoted} && chmod u+rwx {quoted}'
