"""A pytest plugin: a test that leaves a process behind fails, the daemonised ones included. Linux only.

A proxy started by a manager that has exited belongs to init, out of sight. So pytest declares itself the
subreaper of its descendants (prctl(2), PR_SET_CHILD_SUBREAPER): orphans become its own children, and it reaps
them as init would, because a zombie would look alive to whoever asks for its pid.
"""

import ctypes
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

import pytest

from tests.support import procfs
from tests.support.wait import eventually

_PR_SET_CHILD_SUBREAPER = 36
_SETTLE = 2.0  # seconds that a process which was told to stop may take to be gone


class Owned:
    """The children that a living subprocess.Popen answers for.

    Heard from the audit event that Popen raises before it forks (PEP 578), whose caller's frame holds the Popen.
    Looking them up among all objects (gc.get_objects) now and then broke another thread's tuple on CPython 3.11.
    """

    def __init__(self) -> None:
        self._popens: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()
        self._lock = threading.Lock()
        sys.addaudithook(self._heard)  # cannot be taken back: one for the whole run of the tests

    def pids(self) -> set[int]:
        with self._lock:
            popens = tuple(self._popens)
        return {popen.pid for popen in popens if hasattr(popen, "pid")}

    def _heard(self, event: str, _: object) -> None:
        if event == "subprocess.Popen":
            frame = sys._getframe(1)  # noqa: SLF001  the event's arguments do not say which Popen raised it
            popen = frame.f_locals.get("self")
            if isinstance(popen, subprocess.Popen):
                with self._lock:
                    self._popens.add(popen)


class Reaper:
    """Reaps dead orphans, like init. Never a child of subprocess.Popen: its exit code is for its owner."""

    def __init__(self, owned: Owned, *, every: float = 0.05) -> None:
        self._owned = owned
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reaper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        seen: set[int] = set()
        owned: set[int] = set()
        while not self._over.wait(self._every):
            zombies = self._zombies()
            owned &= zombies
            if suspects := (zombies & seen) - owned:
                owned |= suspects & self._owned.pids()
            for pid in suspects - owned:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            seen = zombies

    @staticmethod
    def _zombies() -> set[int]:
        """Our dead children. One cheap call answers "none", which is nearly always the answer."""
        try:
            if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return set()
        except ChildProcessError:
            return set()
        me = os.getpid()
        return {
            process.pid for process in procfs.descendants(me) if process.parent == me and process.is_zombie
        }


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent dies. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@pytest.fixture(scope="session", autouse=True)
def _orphans() -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    adopt_orphans()
    with Reaper(Owned()):
        yield


@pytest.fixture(autouse=True)
def _no_process_left(_orphans: None) -> Iterator[None]:
    """Fails a test that leaves processes behind, and ends them. Those of wider fixtures are not judged."""
    if not procfs.available():
        yield
        return
    before = frozenset((process.pid, process.started) for process in _alive(frozenset()))
    yield
    try:
        eventually(lambda: not _alive(before), within=_SETTLE)
    except AssertionError:
        left = _alive(before)
        for process in left:
            process.kill()
        commands = "\n".join(f"  {process.pid}: {process.command}" for process in left)
        pytest.fail(f"this test left {len(left)} process(es) behind (ended now):\n{commands}", pytrace=False)


def _alive(without: frozenset[tuple[int, int]]) -> list[procfs.Process]:
    found = procfs.descendants(os.getpid(), without=without)
    return [process for process in found if not process.is_zombie]
