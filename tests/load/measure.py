"""Not a benchmark: figures that a load test compares, taken so that a busy machine does not decide them.

A proxy under load is measured beside a quiet one, question by question in turns: what slows the machine slows both.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, stub
from tests.support.process import PYTHON, Running, running
from tests.support.wait import eventually

STORED = json.dumps(chat_body("stored")).encode()
MIB = 2**20


@dataclass(frozen=True)
class Pair:
    """A proxy for a crowd, a quiet one, and the model server behind both."""

    loaded: Proxy
    quiet: Proxy
    server: Stub


@contextmanager
def pair(folder: Path, env: dict[str, str], **more: str) -> Iterator[Pair]:
    with stub() as server:
        environ = [env | settings(folder / name, server.url, LOG_LEVEL="INFO", **more) for name in "ab"]
        with proxy(environ[0]) as loaded, proxy(environ[1]) as quiet:
            for front in (loaded, quiet):
                for _ in range(50):
                    assert front.ask(STORED).status == 200
            yield Pair(loaded, quiet, server)


@contextmanager
def crowd(kind: str, port: int, count: int, *, seconds: float) -> Iterator[Running]:
    """A crowd that is there, or on its way out."""
    argv = [PYTHON, "-m", "tests.load.crowd", kind, str(port), str(count), str(seconds)]
    with running(argv) as process:
        process.says("ready", within=60)
        yield process


def told(process: Running, *, within: float) -> Any:
    """What it printed at its end."""
    assert process.wait(within=within) == 0, process.err
    return json.loads(process.out.splitlines()[-1])


def in_turns(one: Pair, count: int) -> tuple[list[float], list[float]]:
    """Seconds of so many hits each, sorted: of the loaded proxy, of the quiet one. All must be served."""
    times: tuple[list[float], list[float]] = ([], [])
    with Client(one.loaded.port) as loaded, Client(one.quiet.port) as quiet:
        for _ in range(count):
            for client, taken in zip((loaded, quiet), times, strict=True):
                began = time.perf_counter()
                client.send("POST", CHAT, STORED)
                assert client.reply().cache == "HIT"
                taken.append(time.perf_counter() - began)
    return sorted(times[0]), sorted(times[1])


def p99(times: Sequence[float]) -> float:
    return times[int(len(times) * 0.99)]


def usual(times: Sequence[float]) -> float:
    """What a bar is held against: the p99 of many, the median of few, where one late tick says nothing."""
    return p99(times) if len(times) >= 1000 else times[len(times) // 2]


def resident(front: Proxy) -> int:
    """Bytes of memory that it has now."""
    with open(f"/proc/{front.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmRSS"))


def cpu_seconds(front: Proxy) -> float:
    """What it has used of the processor so far (proc(5): utime and stime)."""
    fields = Path(f"/proc/{front.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settled(front: Proxy) -> int:
    """The same, once it no longer changes."""
    seen = [0]

    def same() -> int:
        seen.append(resident(front))
        return seen[-1] if abs(seen[-1] - seen[-2]) < 64 * 1024 else 0

    return eventually(same, within=20, every=0.5)
