"""Crowds: what they cost, that they end, and what those who ask properly notice of them. The bars are the project's.

Each has a small sample in every run; the full size is `long`. Figures are printed (`-rA` shows them).
"""

import json
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.load.measure import (
    MIB,
    Pair,
    cpu_seconds,
    crowd,
    in_turns,
    p99,
    pair,
    resident,
    settled,
    told,
    usual,
)
from tests.proxy.front import Client, Proxy, chat_body, proxy, settings
from tests.proxy.stub import Turn, stub
from tests.support.process import PYTHON, running
from tests.support.wait import eventually

LONG = (pytest.mark.long, pytest.mark.timeout(600))
SWEEP = 3.0  # seconds after its deadline by which a connection is closed: one look at all takes two
NOISE = 0.005  # seconds: of a quiet proxy's p99 on a machine that does other things, too


def say(**figures: object) -> None:
    print(json.dumps(figures))  # noqa: T201 - the figures are what the long run is for


# --- crowds ------------------------------------------------------------------------------------------------------
def slow_ones(both: Pair, count: int, *, header: float, body: float) -> None:
    """G9: silent, dripping headers, dripping bodies; all closed by their deadlines, good traffic as ever."""
    with crowd("slow", both.loaded.port, count, seconds=body + 60) as slow:
        loaded, quiet = in_turns(both, 50 if count < 1000 else 3000)
        ended = told(slow, within=body + 60)
    say(bar="G9", connections=count, p99_loaded=p99(loaded), p99_quiet=p99(quiet), **ended)
    assert usual(loaded) < 2 * max(usual(quiet), NOISE)
    deadlines = {"silent": header, "dripping header": header, "dripping body": body / 3}
    for kind, deadline in deadlines.items():
        assert ended[kind]["closed"] == ended[kind]["count"]
        assert ended[kind]["longest"] < deadline + SWEEP + (0 if count >= 1000 else 5)
    assert ended["dripping header"]["said"].keys() == ended["dripping body"]["said"].keys() == {"408"}


def idle_ones(both: Pair, count: int, *, most: int) -> None:
    """G10: 10 KiB each after a request each, and the others hardly notice them."""
    before = settled(both.loaded)
    with crowd("idle", both.loaded.port, count, seconds=60):
        each = (settled(both.loaded) - before) / count
        loaded, quiet = in_turns(both, 50 if count < 1000 else 2000)
    say(bar="G10", connections=count, bytes_each=each, p99_loaded=p99(loaded), p99_quiet=p99(quiet))
    assert each < most
    assert usual(loaded) < max(0.02, 2 * usual(quiet))


def endless(turn: Turn) -> None:
    if b"reader" not in turn.body:
        turn.reply(b"{}")
        return
    turn.stream()
    event = b"data: " + b"x" * 16_000 + b"\n\n"
    for _ in range(20_000):
        turn.chunk(event)


def who_never_reads(both: Pair, count: int, *, stall: float, most: int) -> None:
    """G13: 1 MiB each; cut after the stall time; the others are served as ever."""
    both.server.turns.clear()
    both.server.script = endless
    before = settled(both.loaded)
    with crowd("readers", both.loaded.port, count, seconds=stall + 60) as deaf:
        both.server.wait_turns(count)
        each = (settled(both.loaded) - before) / count
        loaded, quiet = in_turns(both, 50 if count < 100 else 1000)
        ended = told(deaf, within=stall + 60)["reader"]
    say(bar="G13", bytes_each=each, p99_loaded=p99(loaded), p99_quiet=p99(quiet), **ended)
    assert each < most
    assert ended["closed"] == count
    assert stall - 0.5 < ended["longest"] < stall + SWEEP + 10
    assert usual(loaded) < 2 * max(usual(quiet), NOISE)


def test_a_small_crowd_of_each_kind(tmp_path: Path, env: dict[str, str]) -> None:
    more = {
        "LLMPOD_HEADER_SECONDS": "1.5",
        "LLMPOD_BODY_IDLE_SECONDS": "3",
        "LLMPOD_KEEP_ALIVE_SECONDS": "600",
        "LLMPOD_STALL_SECONDS": "4",
    }
    with pair(tmp_path, env, **more) as both:
        idle_ones(both, 400, most=20 * 1024)  # of few, what all share counts, too
        slow_ones(both, 90, header=1.5, body=3)
        who_never_reads(both, 10, stall=4, most=2 * MIB)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_thousand_slow_ones(tmp_path: Path, env: dict[str, str]) -> None:
    with pair(tmp_path, env) as both:
        slow_ones(both, 2000, header=10, body=30)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_thousand_idle_ones(tmp_path: Path, env: dict[str, str]) -> None:
    with pair(tmp_path, env, LLMPOD_MAX_CONNECTIONS="15000", LLMPOD_KEEP_ALIVE_SECONDS="600") as both:
        idle_ones(both, 10_000, most=10 * 1024)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_who_never_read(tmp_path: Path, env: dict[str, str]) -> None:
    with pair(tmp_path, env, LLMPOD_STALL_SECONDS="30") as both:
        who_never_reads(both, 100, stall=30, most=MIB)


@pytest.mark.parametrize(("places", "seconds"), [(8, 2.0), pytest.param(16, 15.0, marks=LONG)])
def test_too_much_is_shed_early_and_cheaply(
    tmp_path: Path, env: dict[str, str], places: int, seconds: float
) -> None:
    """G12: ten times as many questions as can be answered; who is let in waits little, who is not hears it at once."""
    takes = 0.1
    capacity = places / takes
    with running([PYTHON, "-m", "tests.load.flood", "upstream", str(takes)]) as model:
        model.says("port", within=20)
        endpoint = f"http://127.0.0.1:{model.out.split()[1]}"
        # as many wait for each place as by default
        narrow = {"LLMPOD_MAX_IN_FLIGHT": str(places), "LLMPOD_MAX_QUEUE": str(places * 3 // 4)}
        environ = settings(tmp_path / "c", endpoint, LOG_LEVEL="INFO", **narrow)
        with proxy(env | environ) as front:
            runs, spent = {}, [0.0]
            for load, connections in ((0.5, 100), (10, 400)):
                argv = [front.port, capacity * load, seconds, connections]
                with running([PYTHON, "-m", "tests.load.flood", *map(str, argv)]) as flood:
                    runs[load] = told(flood, within=seconds + 30)
                spent.append(cpu_seconds(front))
            cpu_each = (spent[-1] - spent[-2]) / runs[10]["asked"]
            memory = resident(front)
    alone, served, refused = runs[0.5]["by_status"]["200"], *map(runs[10]["by_status"].get, ("200", "503"))
    say(bar="G12", capacity=capacity, alone=alone, memory=memory, cpu_each=cpu_each, **runs[10])
    assert set(runs[0.5]["by_status"]) == {"200"}
    assert set(runs[10]["by_status"]) == {"200", "503"}
    assert cpu_each < 0.002
    assert memory < 256 * MIB
    if places < 16:  # how quickly it is done, a machine tells that does nothing else
        return
    assert served["p99"] <= 2 * alone["p99"]
    assert refused["p99"] <= 0.02 + 2 * runs[10]["late"]
    assert served["count"] / seconds >= 0.9 * places / alone["p50"]
    assert runs[10]["asked"] >= 0.8 * 10 * capacity * seconds


def test_an_endless_header_and_a_thousand_looks(tmp_path: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(tmp_path / "c", server.url)) as front:
        rate = a_thousand_looks(front)
        assert (server.turns, server.connections) == ([], 0)
        endless_header(front)
    say(bar="F64", a_second=rate)


def endless_header(front: Proxy) -> None:
    """G8: 64 MiB of header: 431 after 32 KiB of it, and less than 1 MiB of memory."""
    before, sent, piece = settled(front), 0, b"y" * 65536
    with Client(front.port, timeout=30) as client:
        client.sock.sendall(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx: ")
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 64 * MIB:
                client.sock.sendall(piece)
                sent += len(piece)
        said = client.sock.recv(12)
    grown = resident(front) - before
    say(bar="G8", sent=sent, grown=grown)
    assert said == b"HTTP/1.1 431"
    assert grown < MIB


def a_thousand_looks(front: Proxy) -> float:
    """F64: at each page for supervisors, none of which asks the model server; how many a second."""
    with front.client() as client:
        began = time.monotonic()
        for number in range(1000):
            client.send("GET", ("/health", "/readyz", "/livez", "/metrics")[number % 4])
            assert client.reply().status == 200
        return 1000 / (time.monotonic() - began)


def test_files_run_out_for_nobody(tmp_path: Path, env: dict[str, str]) -> None:
    """G11: a proxy that may open 600 files keeps 256 for itself; the rest come in, more hear 503, and it recovers."""
    script = Path(__file__).parents[2] / "proxy_fastapi.py"
    limited: list[str | Path] = ["/bin/sh", "-c", 'ulimit -n 600; exec "$0" "$@"', PYTHON, script]
    with stub() as server, proxy(env | settings(tmp_path / "c", server.url), argv=limited) as front:
        with crowd("idle", front.port, 450, seconds=3) as many:
            told_by_crowd = told(many, within=30)["idle"]
        assert told_by_crowd["said"] == {"200": 344, "503": 106}
        assert eventually(lambda: front.ask(chat_body("again")).status == 200, ignoring=OSError)
        said = [line for line in front.logs() if line["event"] == "too_many_connections"]
        assert 1 <= len(said) <= 10
