"""Not a client that anybody wants: a process of its own that plays a crowd against the proxy, and tells how it went.

    python -m tests.load.crowd slow|idle|readers PORT COUNT SECONDS

Each prints `ready` when all its connections are open and have sent what they send, and at the end one line of JSON:
for each kind how many the proxy closed, after how many seconds the last one, and what it said to them.
"""

import json
import resource
import select
import socket
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
DRIP_SECONDS = 0.5
SMALL_WINDOW = 4096


@dataclass
class Member:
    """One connection: what it sends at first, and again and again."""

    kind: str
    first: bytes = b""
    piece: bytes = b""
    reads: bool = True
    sock: socket.socket = field(default_factory=socket.socket)
    opened: float = 0.0
    said: str = ""
    closed: float = 0.0


def slow(number: int) -> Member:
    """Silent, a header that drips, a body that drips."""
    kinds = (
        Member("silent"),
        Member("dripping header", b"POST /v1/x HTTP/1.1\r\n", b"a: b\r\n"),
        Member("dripping body", HEAD + b"content-length: 100000\r\n\r\n", b"x"),
    )
    return kinds[number % 3]


def idle(_: int) -> Member:
    """Asks once, for what is stored, and is quiet from then on."""
    return Member("idle", HEAD + _length(b'{"model":"m","messages":[{"role":"user","content":"stored"}]}'))


def readers(number: int) -> Member:
    """Asks for a stream of its own and never reads."""
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"reader %d"}]}' % number
    return Member("reader", HEAD + _length(body), reads=False)


def _length(body: bytes) -> bytes:
    return b"content-length: %d\r\n\r\n%b" % (len(body), body)


KINDS: dict[str, Callable[[int], Member]] = {"slow": slow, "idle": idle, "readers": readers}


class Crowd:
    """All of them, looked after by one poll."""

    def __init__(self, members: list[Member], port: int) -> None:
        self._members = members
        self._poll = select.epoll()
        self._by_number: dict[int, Member] = {}
        for member in members:
            self._join(member, port)

    def _join(self, member: Member, port: int) -> None:
        sock = member.sock
        sock.settimeout(30)
        if not member.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        sock.connect(("127.0.0.1", port))
        member.opened = time.monotonic()
        sock.sendall(member.first)
        sock.settimeout(0)
        self._by_number[sock.fileno()] = member
        events = select.EPOLLRDHUP | (select.EPOLLIN if member.reads else 0)
        self._poll.register(sock.fileno(), events)

    def run(self, seconds: float) -> None:
        """Until everybody is closed or the time is over."""
        end = time.monotonic() + seconds
        drip_at = time.monotonic() + DRIP_SECONDS
        while self._by_number and time.monotonic() < end:
            for number, event in self._poll.poll(0.1):
                self._hear(number, event)
            if time.monotonic() >= drip_at:
                drip_at = time.monotonic() + DRIP_SECONDS
                for number in [n for n, member in self._by_number.items() if member.piece]:
                    self._drip(number)

    def _hear(self, number: int, event: int) -> None:
        member = self._by_number[number]
        if member.reads:
            try:
                came = member.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                came = b""
            if came:
                member.said = member.said or came[9:12].decode("latin-1")
                return
        self._gone(number)

    def _drip(self, number: int) -> None:
        try:
            self._by_number[number].sock.send(self._by_number[number].piece)
        except BlockingIOError:
            pass
        except OSError:
            self._gone(number)

    def _gone(self, number: int) -> None:
        member = self._by_number.pop(number)
        member.closed = time.monotonic() - member.opened
        self._poll.unregister(number)
        member.sock.close()

    def told(self) -> dict[str, Any]:
        """How it went, by kind."""
        kinds: dict[str, list[Member]] = defaultdict(list)
        for member in self._members:
            kinds[member.kind].append(member)
        return {
            kind: {
                "count": len(members),
                "closed": sum(1 for member in members if member.closed),
                "longest": round(max(member.closed for member in members), 2),
                "said": dict(Counter(member.said for member in members)),
            }
            for kind, members in kinds.items()
        }


def main() -> None:
    """Play one crowd."""
    kind, port, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    crowd = Crowd([KINDS[kind](number) for number in range(count)], port)
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    crowd.run(seconds)
    print(json.dumps(crowd.told()), flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
