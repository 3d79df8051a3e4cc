"""Too much memory (F49): new work is refused while other work is under way, one thing after the other is served."""

import threading
from pathlib import Path

from llmpod.observe import Log
from llmpod.proxy.memory import MemoryWatch
from tests.proxy.front import chat_body, proxy, raw_chat, settings
from tests.proxy.stub import Turn, plain, stub
from tests.support.wait import eventually


def test_above_its_cap_it_refuses_what_comes_on_top(cache_dir: Path, env: dict[str, str]) -> None:
    go = threading.Event()

    def script(turn: Turn) -> None:
        if "long" in turn.json["messages"][-1]["content"]:
            go.wait(15)
        plain(turn)

    environ = env | settings(cache_dir, LLMPOD_MEMORY_BYTES="1000000")  # any process has more
    with (
        stub() as server,
        proxy(environ | {"RUNPOD_ENDPOINT": server.url}) as front,
        front.client() as client,
    ):
        server.script = script
        eventually(lambda: front.get("/health").json["memory_full"], within=15)
        assert front.get("/health").json["memory_bytes"] > 1_000_000
        assert front.metrics()["memory_full"] == 1
        assert [line["cap"] for line in front.logs() if line["event"] == "memory_full"] == [1_000_000]
        assert front.ask(chat_body("alone")).status == 200
        client.sock.sendall(raw_chat("long"))
        server.wait_turns(2)
        refused = front.ask(chat_body("on top"))
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert front.get("/livez").status == 200
        go.set()
        assert client.reply().status == 200
        assert front.ask(chat_body("on top")).status == 200
        assert front.ask(chat_body("alone")).cache == "HIT", "what left memory is on disk"


def test_within_its_cap_it_says_how_much_it_holds(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server, proxy(env | settings(cache_dir, server.url)) as front:
        health = front.get("/health").json
        assert 10 * 2**20 < health["memory_bytes"] < 256 * 2**20
        assert health["memory_full"] is False


def test_it_is_over_once_enough_was_given_back() -> None:
    """Told once when it begins and once when it ends, a little below the cap; looked at once a second."""
    said: list[bytes] = []
    log = Log(said.append)
    now, held, relieved = [0.0], [90], [0]

    def relieve() -> None:
        relieved[0] += 1

    watch = MemoryWatch(100, log, relieve=relieve, held=lambda: held[0], clock=lambda: now[0])
    seen = []
    for at, size in ((0.5, 500), (1.5, 90), (2.6, 101), (3.7, 96), (4.8, 95), (5.9, 100)):
        now[0], held[0] = at, size
        seen.append(watch.look())
    log.close()
    assert seen == [False, False, True, True, False, False]
    assert relieved[0] == 2
    assert [line.count(b"memory_full") for line in (b"".join(said),)] == [1]
    assert b"".join(said).count(b"memory_well") == 1


def test_no_cap_is_no_cap() -> None:
    log = Log(lambda _: None)
    watch = MemoryWatch(0, log, relieve=lambda: None, held=lambda: 10**15, clock=iter(range(9)).__next__)
    assert not any(watch.look() for _ in range(3))
    log.close()
