"""Not a client: sends raw inputs to a port, many connections at a time in one thread, and notes what comes back.

Cheap, so that a million is possible: no thread, no parser, and one system call for each thing that happens.
"""

import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from tests.fuzz.inputs import Input

AT_ONCE: Final = 48
HANG_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 0.2  # for an answer, before the end of sending is told
LOST_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.05


@dataclass
class Tally:
    """What came back. ``faults``: answers that blame the server; ``late``: not over within ``HANG_SECONDS``."""

    sent: int = 0
    answered: int = 0
    served: int = 0
    faults: list[bytes] = field(default_factory=list)
    late: list[Input] = field(default_factory=list)


class _Shot:
    """One connection."""

    __slots__ = ("heard", "input", "left", "shut", "since", "sock")

    def __init__(self, given: Input, port: int) -> None:
        self.input = given
        self.left = list(reversed(given.pieces))
        self.heard = b""
        self.shut = False
        self.sock = socket.socket()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)  # noqa: FBT003 - its only parameter
        self.since = time.monotonic()

    def send(self) -> bool:
        """The next piece; whether more is to be said."""
        if self.left:
            piece = self.left.pop()
            rest = piece[self.sock.send(piece) :]
            if rest:
                self.left.append(rest)
        if not self.left and not self.input.patient:
            self.shutdown()
        return bool(self.left)

    def shutdown(self) -> None:
        if not self.shut:
            self.shut = True
            self.sock.shutdown(socket.SHUT_WR)


def volley(port: int, given: Iterable[Input], *, at_once: int = AT_ONCE) -> Tally:
    """Send all of it. Raises AssertionError when a connection is not over after ``LOST_SECONDS``."""
    with selectors.DefaultSelector() as selector:
        return _Volley(port, selector).run(iter(given), at_once)


class _Volley:
    """All connections of one volley."""

    def __init__(self, port: int, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._selector = selector
        self._live: dict[int, _Shot] = {}
        self._tally = Tally()

    def run(self, waiting: Iterator[Input], at_once: int) -> Tally:
        looked = time.monotonic()
        self._fill(waiting, at_once)
        while self._live:
            for key, events in self._selector.select(LOOK_SECONDS):
                self._go_on(key.data, events)
            now = time.monotonic()
            if now - looked > LOOK_SECONDS:
                looked = now
                self._hurry(now)
            self._fill(waiting, at_once)
        return self._tally

    def _fill(self, waiting: Iterator[Input], at_once: int) -> None:
        for one in islice(waiting, at_once - len(self._live)):
            self._begin(_Shot(one, self._port))

    def _begin(self, shot: _Shot) -> None:
        self._tally.sent += 1
        self._live[shot.sock.fileno()] = shot
        try:
            events = selectors.EVENT_WRITE if shot.send() else 0
        except OSError:  # refused and closed meanwhile: what it said may still be read
            events = 0
        self._selector.register(shot.sock, events | selectors.EVENT_READ, shot)

    def _go_on(self, shot: _Shot, events: int) -> None:
        over = False
        try:
            if events & selectors.EVENT_READ:
                chunk = shot.sock.recv(262_144)
                over = not chunk
                shot.heard += chunk
            if events & selectors.EVENT_WRITE and not over and not shot.send():
                self._selector.modify(shot.sock, selectors.EVENT_READ, shot)
        except OSError:
            over = True
        if over:
            self._selector.unregister(shot.sock)
            del self._live[shot.sock.fileno()]
            shot.sock.close()
            self._note(shot)

    def _hurry(self, now: float) -> None:
        for shot in self._live.values():
            waited = now - shot.since
            assert waited < LOST_SECONDS, shot.input
            if waited > PATIENCE_SECONDS and not shot.left:
                with suppress(OSError):  # it was cut: the next read says so
                    shot.shutdown()

    def _note(self, shot: _Shot) -> None:
        tally, heard = self._tally, shot.heard
        tally.answered += heard.startswith(b"HTTP/1.1 ")
        tally.served += heard.startswith(b"HTTP/1.1 2")
        strange = heard and not heard.startswith(b"HTTP/1.1 ")
        if strange or b"HTTP/1.1 5" in heard or b"Traceback" in heard:
            tally.faults.append(b"".join(shot.input.pieces) + b"  ->  " + heard[:300])
        if time.monotonic() - shot.since > HANG_SECONDS:
            tally.late.append(shot.input)
