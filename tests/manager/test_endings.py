"""`run` ended in every way a terminal has, and things that must not keep a pod alive."""

import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llmpod.lifecycle.probe import HttpProber
from llmpod.model import Instance, Observed
from llmpod.secret import Secret
from tests.support.install import Install
from tests.support.net import listens
from tests.support.wait import eventually


@contextmanager
def at_a_terminal(install: Install, *arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """A command with a terminal of its own, and the terminal's other end."""
    master, slave = pty.openpty()
    install.proxy = True
    process = subprocess.Popen(
        install.argv(*arguments),
        env=install.environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def read_until(master: int, text: str) -> str:
    seen = ""
    while text not in seen:
        seen += os.read(master, 4096).decode(errors="replace")
    return seen


def nothing_left(install: Install) -> None:
    eventually(lambda: install.sim.alive() == [], within=15)
    eventually(lambda: not listens(install.port), within=15)


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 3, [signal.SIGINT, signal.SIGTERM], [signal.SIGHUP]])
def test_impatient_endings_leave_nothing(install: Install, signals: list[signal.Signals]) -> None:
    with at_a_terminal(install, "run", "--yes") as (process, master):
        read_until(master, "Ctrl-C stops")
        for number in signals[:2]:
            process.send_signal(number)
        assert process.wait(60) == 0
        os.close(master)
    nothing_left(install)


def test_a_closed_terminal_leaves_nothing(install: Install) -> None:
    with at_a_terminal(install, "run", "--yes") as (process, master):
        read_until(master, "Ctrl-C stops")
        process.send_signal(signal.SIGHUP)
        os.close(master)
        process.wait(60)
    nothing_left(install)


def test_a_pipe_whose_reader_died_leaves_nothing(install: Install) -> None:
    install.proxy = True
    reader, writer = os.pipe()
    process = subprocess.Popen(
        install.argv("run", "--yes"),
        env=install.environ,
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    read_until(reader, "Ctrl-C stops")
    os.close(reader)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    nothing_left(install)


def test_no_at_the_price_leaves_nothing_and_says_so(install: Install) -> None:
    with at_a_terminal(install, "run") as (process, master):
        said = read_until(master, "(y/N)")
        assert "$" in said
        os.write(master, b"\x04")
        assert "Not started" in read_until(master, "Not started")
        assert process.wait(30) == 1
        os.close(master)
    assert install.sim.alive() == []


def test_a_start_at_a_terminal_shows_the_true_phases(install: Install) -> None:
    install.sim.set(container_seconds=0.6, load_seconds=1.0)
    with at_a_terminal(install, "up") as (process, master):
        said = read_until(master, "watchdog")
        assert process.wait(30) == 0
        os.close(master)
    phases = ["pulling", "container up", "model ready"]
    assert [phase for phase in phases if phase in said] == phases
    assert "so far" in said


def test_up_does_not_claim_ready_for_a_pod_that_is_gone(install: Install) -> None:
    install.write(create_grace_seconds=1.0)
    pod = install.passes_until("ready")["pod_id"]
    install.console("DELETE", f"/v2/pods/{pod}")
    with at_a_terminal(install, "up") as (process, master):
        said = read_until(master, "vanished")
        assert "model ready" not in said
        assert process.wait(60) == 1
        os.close(master)


def test_a_pod_renamed_in_the_console_is_still_ours(install: Install) -> None:
    pod = install.passes_until("ready")["pod_id"]
    install.console("PATCH", f"/v2/pods/{pod}", {"name": "my coder"})
    install.manage("--shutdown").expect()
    assert install.sim.alive() == []


def test_a_lost_install_key_does_not_hide_the_recorded_pod(install: Install) -> None:
    install.passes_until("ready")
    next(install.directory.rglob("install.key")).unlink()
    install.manage("--shutdown").expect()
    assert install.sim.alive() == []


@pytest.mark.parametrize("why", ["shutdown", "deadline"])
def test_a_full_disk_does_not_keep_a_pod_alive(install: Install, why: str) -> None:
    install.passes_until("ready")
    if why == "deadline":
        path = install.directory / "pod_state.json"
        document = json.loads(path.read_text())
        document["models"]["default"]["deadline"] = 1.0
        path.write_text(json.dumps(document))
    argv = install.argv(*(["--shutdown"] if why == "shutdown" else []))
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *argv]
    done = subprocess.run(
        limited, env=install.environ, capture_output=True, text=True, timeout=90, check=False
    )
    assert "Traceback" not in done.stderr
    assert install.sim.alive() == [], done.stdout + done.stderr


@pytest.mark.parametrize(
    "wrong",
    [{"bogus": 1}, {"use_https": True, "ssl_cert": "gone.pem", "ssl_key": "gone.pem"}, {"disk_gb": "x"}],
)
def test_a_wrong_configuration_does_not_keep_a_pod_alive(install: Install, wrong: dict[str, object]) -> None:
    install.passes_until("ready")
    install.write(**wrong)
    install.proxy = True
    done = install.manage("--shutdown").expect()
    install.proxy = False
    assert "Traceback" not in done.err
    assert install.sim.alive() == []


class _Drip(BaseHTTPRequestHandler):
    """A model server that promises much and sends a byte now and then."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        over: threading.Event = self.server.over  # type: ignore[attr-defined]
        while not over.wait(0.1):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own name
        """Silent."""


def test_a_dripping_model_server_holds_a_probe_no_longer_than_its_limit() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Drip)
    server.over = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    prober = HttpProber(quick_seconds=0.5)
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        seen = Instance("p", "n", Observed.RUNNING, base_url=url, container_up=True)
        health = prober.check(seen, Secret("key", "a test"), "m", was_ready=False)
        assert "does not end" in health.detail
    finally:
        server.over.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
        thread.join()


def test_an_order_of_a_person_is_never_overwritten_by_a_first_run(state_dir: Path) -> None:
    from llmpod.lifecycle.store import Store
    from llmpod.model import Direction, Want

    store = Store(state_dir / "pod_state.json")
    store.order({"default": Want(Direction.DOWN, 1.0, "--shutdown")})
    store.order_instead({}, {"default": Want(Direction.UP, 2.0, "first run")})
    assert store.orders()["default"].by == "--shutdown"
