"""What the machine has no more of: room for the cache and for the log, files that may be open (F37, F42, F50, F51)."""

import os
import resource
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.proxy.front import SCRIPT, Client, Proxy, chat_body, proxy, raw_chat, settings
from tests.proxy.stub import Stub, stub
from tests.support.net import free_port, listens
from tests.support.process import PYTHON
from tests.support.wait import eventually

LONG = "long " * 20_000


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub() as running:
        yield running


def limit_files(front: Proxy, size: int) -> None:
    """The largest file that the proxy may write from now on, as a full disk would have it (EFBIG for ENOSPC)."""
    _, hard = resource.prlimit(front.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(front.process.pid, resource.RLIMIT_FSIZE, (size, hard))


# --- F37
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits of another process are Linux's")
def test_answers_are_served_and_kept_in_memory_while_the_disk_takes_none(
    cache_dir: Path, env: dict[str, str], server: Stub
) -> None:
    with proxy(env | settings(cache_dir, server.url)) as front:
        assert front.ask(chat_body("before")).cache == "MISS"
        limit_files(front, 60_000)
        refused = front.ask(chat_body(LONG))
        assert (refused.status, refused.cache) == (200, "MISS")
        eventually(lambda: front.get("/health").json["cache_degraded"], within=15)
        metrics = front.metrics()
        assert (metrics["cache_degraded"], metrics["cache_write_errors"]) == (1, 1)
        assert front.ask(chat_body("before")).cache == "HIT"
        assert front.ask(chat_body(LONG)).cache == "HIT", "from memory"
        limit_files(front, resource.RLIM_INFINITY)
        eventually(lambda: not front.get("/health").json["cache_degraded"], within=60)
        eventually(lambda: [line for line in front.logs() if line["event"] == "cache_well"], within=15)
        assert len([line for line in front.logs() if line["event"] == "cache_degraded"]) == 1
        assert front.metrics()["cache_degraded"] == 0
    with proxy(env | settings(cache_dir, server.url)) as again:
        assert again.ask(chat_body(LONG)).cache == "HIT", "it was stored when there was room again"


# --- F42
def test_a_directory_that_is_replaced_by_a_link_is_told_and_not_followed(
    cache_dir: Path, tmp_path: Path, env: dict[str, str], server: Stub
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with proxy(env | settings(cache_dir, server.url)) as front:
        front.ask(chat_body("one"))
        eventually(lambda: list(cache_dir.glob("*.seg")))
        cache_dir.rename(tmp_path / "moved")
        cache_dir.symlink_to(elsewhere)
        assert front.ask(chat_body("two")).status == 200
        eventually(lambda: str(cache_dir) in (front.get("/health").json["cache_degraded"] or ""), within=15)
        assert front.ask(chat_body("two")).cache == "HIT"
        assert list(elsewhere.iterdir()) == []
        cache_dir.unlink()
        eventually(lambda: not front.get("/health").json["cache_degraded"], within=60)
        assert cache_dir.stat().st_mode & 0o777 == 0o700


def bound_by_modes() -> list[str]:
    """The words that start a program for which the modes of files count, though its user be root."""
    if os.geteuid() != 0:
        return []
    words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    if shutil.which(words[0]) is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip("root without its rights needs setpriv (util-linux)")
    return words


def test_a_directory_that_becomes_unreadable_is_told_and_answers_go_on(
    cache_dir: Path, env: dict[str, str], server: Stub
) -> None:
    environ = env | settings(cache_dir, server.url)
    with proxy(environ, argv=[*bound_by_modes(), PYTHON, str(SCRIPT)]) as front:
        assert front.ask(chat_body("before")).cache == "MISS"
        eventually(lambda: list(cache_dir.glob("*.seg")))
        cache_dir.chmod(0)
        assert front.ask(chat_body("before")).cache == "HIT"
        assert front.ask(chat_body(LONG)).status == 200
        eventually(lambda: str(cache_dir) in (front.get("/health").json["cache_degraded"] or ""), within=30)
        assert front.ask(chat_body(LONG)).cache == "HIT", "from memory"
        assert front.ask(chat_body("before")).cache == "HIT"
        cache_dir.chmod(0o700)
        eventually(lambda: not front.get("/health").json["cache_degraded"], within=60)
    with proxy(environ) as again:
        assert again.ask(chat_body("before")).cache == "HIT", "nothing was lost"
        assert again.ask(chat_body(LONG)).cache == "HIT", "it was stored when that could be done again"


# --- F51
def answers(port: int) -> bool:
    with closing(Client(port)) as client:
        client.sock.sendall(raw_chat("still"))
        return client.reply().status == 200


@pytest.mark.parametrize("words", ["2>/dev/full", "2>&- 1>&- 0<&-"])
def test_a_log_that_goes_nowhere_holds_nobody_up(
    cache_dir: Path, env: dict[str, str], server: Stub, words: str
) -> None:
    """A full disk, and standard streams that are closed: nothing else may take their numbers."""
    port = free_port()
    environ = env | settings(cache_dir, server.url, PORT=str(port))
    command = ["sh", "-c", f'exec "$@" {words}', "sh", PYTHON, str(SCRIPT)]
    with subprocess.Popen(command, env=environ, start_new_session=True) as process:
        try:
            eventually(lambda: listens(port), within=20)
            front = Proxy(None, port)  # type: ignore[arg-type]  # it says nothing
            for number in range(50):
                assert front.ask(chat_body(str(number % 5))).status == 200
            if words.endswith("full"):
                eventually(lambda: front.metrics()["log_lines_dropped"] >= 50)
            links = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in range(3)]
            assert not [link for link in links if link.startswith(("socket:", str(cache_dir)))], links
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_a_log_that_nobody_reads_holds_nobody_up(cache_dir: Path, env: dict[str, str], server: Stub) -> None:
    port = free_port()
    environ = env | settings(cache_dir, server.url, PORT=str(port))
    reader, writer = os.pipe()
    with subprocess.Popen([PYTHON, str(SCRIPT)], env=environ, stderr=writer) as process:
        try:
            os.close(writer)
            eventually(lambda: listens(port), within=20)
            front = Proxy(None, port)  # type: ignore[arg-type]  # as above
            with front.client() as client:
                for _ in range(600):  # more lines than a pipe holds (64 KiB)
                    client.sock.sendall(raw_chat("same"))
                    assert client.reply().status == 200
            began = time.monotonic()
            process.terminate()
            assert process.wait(20) == 0
            assert time.monotonic() - began < 10
        finally:
            process.kill()
            os.close(reader)


# --- F50
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs the program prlimit (util-linux)")
def test_at_the_limit_of_open_files_who_is_in_is_served_and_others_are_told(
    cache_dir: Path, env: dict[str, str], server: Stub
) -> None:
    """200 clients where 256 files may be open, half of the rest kept for model servers (G11)."""
    argv = ["prlimit", "--nofile=256:256", PYTHON, str(SCRIPT)]
    with proxy(env | settings(cache_dir, server.url), argv=argv) as front, ExitStack() as stack:
        inside = stack.enter_context(front.client())
        inside.sock.sendall(raw_chat("inside"))
        assert inside.reply().status == 200
        address = ("127.0.0.1", front.port)
        others = [stack.enter_context(closing(socket.create_connection(address, 10))) for _ in range(200)]
        late = others[-1]
        late.settimeout(10)
        assert late.recv(4096).startswith(b"HTTP/1.1 503 ")
        inside.sock.sendall(raw_chat("a new question"))
        assert inside.reply().cache == "MISS", "the way to the model server is open"
        for client in others:
            client.close()
        eventually(lambda: answers(front.port), ignoring=(AssertionError, OSError), within=15)
        metrics = front.metrics()
        assert 50 < metrics["connections_refused_total"] <= 200 - 90
        lines = [line for line in front.logs() if line["event"] == "too_many_connections"]
        assert 1 <= len(lines) < 10
        assert metrics["connections"] < 20
