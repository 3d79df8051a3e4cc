"""Not a benchmark: a process that asks so many questions a second, answered or not, and tells how each was answered.

    python -m tests.load.flood PORT RATE SECONDS CONNECTIONS
    python -m tests.load.flood upstream SECONDS-OF-EACH-ANSWER

The second one is a model server that takes that long, more or less by half, and does not mind how many ask.
"""

import asyncio
import json
import random
import sys
import time
from collections import defaultdict, deque

import uvloop

NAP = 0.002
ANSWER = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)


class Slow(asyncio.Protocol):
    """One connection of the model server: answers each request after a while."""

    seconds = 0.1
    random = random.Random(1)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if b"\r\n\r\n" in data:  # a request of ours comes in one read
            takes = self.seconds * self.random.uniform(0.5, 1.5)
            asyncio.get_running_loop().call_later(takes, self._transport.write, REPLY)  # type: ignore[attr-defined]


class Asker(asyncio.Protocol):
    """One keep-alive connection, one question at a time."""

    def __init__(self, free: deque["Asker"], seen: dict[int, list[float]]) -> None:
        self._free = free
        self._seen = seen
        self._asked_at = 0.0
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._free.append(self)

    def ask(self, number: int) -> None:
        body = b'{"model":"m","messages":[{"role":"user","content":"question %d"}]}' % number
        self._asked_at, self._got = time.perf_counter(), b""
        self._transport.write(  # type: ignore[attr-defined]
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"cache-control: no-store\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, body = self._got.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]):
            return
        self._seen[int(head[9:12])].append(time.perf_counter() - self._asked_at)
        self._free.append(self)


async def flood(port: int, rate: float, seconds: float, connections: int) -> None:
    """Ask at a steady pace; a question for which no connection is free is not asked, and counted.

    ``late`` is by how much the machine kept this process waiting beyond its own naps: so much it keeps others, too.
    """
    loop, free, seen = asyncio.get_running_loop(), deque["Asker"](), defaultdict[int, list[float]](list)
    for _ in range(connections):
        await loop.create_connection(lambda: Asker(free, seen), "127.0.0.1", port)
    began, asked, busy, naps = loop.time(), 0, 0, list[float]()
    while (passed := loop.time() - began) < seconds:
        while asked + busy < rate * passed:
            if free:
                free.popleft().ask(asked)
                asked += 1
            else:
                busy += 1
        slept = time.perf_counter()
        await asyncio.sleep(NAP)
        naps.append(time.perf_counter() - slept - NAP)
    await asyncio.sleep(1.0)
    by_status = {
        status: {"count": len(times), "p50": _part(times, 0.5), "p99": _part(times, 0.99)}
        for status, times in seen.items()
    }
    told = {"asked": asked, "busy": busy, "late": _part(naps, 0.99), "by_status": by_status}
    print(json.dumps(told))  # noqa: T201 - what the test reads


def _part(times: list[float], part: float) -> float:
    return round(sorted(times)[int(len(times) * part)], 5)


async def upstream(seconds: float) -> None:
    """Serve until the end."""
    Slow.seconds = seconds
    server = await asyncio.get_running_loop().create_server(Slow, "127.0.0.1", 0)
    print(f"port {server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - the test waits for it
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "upstream":
        uvloop.run(upstream(float(sys.argv[2])))
    else:
        uvloop.run(flood(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
