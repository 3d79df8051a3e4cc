"""A real SLURM of one node with a real SSH server: jobs, their tunnels, and the one command line that is all of it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from llmpod.backends.slurm_script import tunnel
from llmpod.config import SlurmSection
from tests.proxy.front import Proxy, Reply, chat_body, proxy
from tests.support import slurm
from tests.support.desk import MODEL, Desk
from tests.support.forks import Forks
from tests.support.net import listens
from tests.support.source import ROOT
from tests.support.wait import eventually

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def site() -> Iterator[slurm.Site]:
    if reason := slurm.why_not():
        pytest.skip(f"no SLURM: {reason}")
    with slurm.cluster() as running:
        yield running


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], site: slurm.Site, forks: Forks) -> Iterator[Desk]:
    made = Desk(state_dir, {**env, "SLURM_CONF": str(site.conf)}, start=forks.run)
    yield made
    made.manage("--shutdown").expect()


def job(site: slurm.Site, **more: object) -> dict[str, object]:
    return {
        "command": [sys.executable, "-m", "llmpod.sim.vllm", "--model", MODEL],
        "env": {"PYTHONPATH": str(ROOT)},
        "srun": "srun --mem=1G --cpus-per-task=1",
        "loopback_user": "root",
        "loopback_host": "127.0.0.1",
        "ssh_port": site.ssh_port,
        "identity_file": str(site.identity),
        "known_hosts": str(site.known_hosts),
        **more,
    }


def test_a_real_job_answers_through_its_tunnel_and_the_proxy(desk: Desk, site: slurm.Site) -> None:
    desk.configure("slurm", job(site), poll_interval_seconds=0.5)
    desk.manage().expect()
    record = desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    assert eventually(desk.ask, within=20, ignoring=requests.RequestException)["choices"]
    tunnel_port = int(record["base_url"].rpartition(":")[2])
    desk.manage("--shutdown").expect()
    eventually(lambda: not listens(tunnel_port), within=20)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"identity_file": "/no/such/key"}, "Permission denied"),
        ({"known_hosts": "/dev/null"}, "Host key verification failed"),
        ({"loopback_host": "no-such-host.invalid"}, "Could not resolve hostname"),
    ],
)
def test_a_real_tunnel_that_fails_says_why(
    desk: Desk, site: slurm.Site, wrong: dict[str, str], says: str
) -> None:
    desk.configure("slurm", job(site, **wrong), max_restarts=0)
    error = desk.passes_until("failed")["error"]
    assert says in error
    assert "SSH tunnel" in error


def test_a_real_tunnel_to_a_port_that_is_taken_fails(site: slurm.Site) -> None:
    """And does not settle for [::1], as it would without the address."""
    more = {"identity_file": str(site.identity), "known_hosts": str(site.known_hosts)}
    where = SlurmSection.model_validate({**job(site), **more})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = tunnel(where, port=taken.getsockname()[1], node_port=9)
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 255
    assert "remote port forwarding failed" in done.stderr


def test_a_real_refusal_a_queue_and_a_dead_controller(desk: Desk, site: slurm.Site) -> None:
    desk.configure("slurm", job(site, srun="srun --partition=nowhere"))
    assert "invalid partition" in desk.passes_until("failed")["error"].lower()
    desk.configure("slurm", job(site, srun="srun --begin=now+1hour"))
    assert "BeginTime" in eventually(lambda: _pending(desk), within=30)
    os.kill(site.controller.pid, signal.SIGSTOP)
    try:
        late = desk.manage("--no-proxy")
        assert late.code == 75
        assert "slurmctld" in late.out
    finally:
        os.kill(site.controller.pid, signal.SIGCONT)


def _pending(desk: Desk) -> str:
    desk.manage("--no-proxy")
    error: str = desk.state()["error"]
    return error if "reason" in error else ""


# --- one command line
SERVER = (sys.executable, "-m", "llmpod.sim.vllm", "--model", "org/typed")
LINE = "srun --mem=1G --cpus-per-task=1 --comment=typed"


@contextmanager
def typed(site: slurm.Site, env: dict[str, str], tmp_path: Path, *options: str) -> Iterator[Proxy]:
    """As the README has it; the node's ssh finds its port and its keys in a file of its own, as in ~/.ssh/config."""
    ssh = site.ssh_in(tmp_path)
    environ = {
        **env,
        "CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "SLURM_CONF": str(site.conf),
        "PATH": f"{ssh}:{env['PATH']}",
    }
    words = ("--port", "0", "--use-slurm", "--srun-cmd", LINE, "--loopback-host", "127.0.0.1")
    with proxy(environ, *words, *options, "--", *SERVER) as front:  # PYTHONPATH is how the node finds llmpod
        yield front


def asked(front: Proxy, text: str) -> Reply:
    with front.client() as client:
        client.sock.settimeout(90)
        body = json.dumps({**chat_body(text), "model": "org/typed"}).encode()
        client.send("POST", "/v1/chat/completions", body)
        return client.reply()


def ended(front: Proxy) -> None:
    os.kill(front.process.pid, signal.SIGTERM)
    eventually(lambda: front.process.code is not None, within=60)
    assert front.process.code == 0, front.process.err


def jobs(site: slurm.Site) -> list[str]:
    """Id and comment of those that wait or run."""
    return slurm.says(site.conf, "squeue", "-h", "-o", "%i %k").splitlines()


def test_one_line_runs_it_as_a_job_while_somebody_asks(
    site: slurm.Site, env: dict[str, str], tmp_path: Path
) -> None:
    with typed(site, env, tmp_path, "--loopback-user", "root", "--idle-timeout", "5") as front:
        assert jobs(site) == []
        assert asked(front, "one").status == 200
        (first,) = jobs(site)
        assert first.endswith(" typed"), "the options of the srun line are the job's"
        slurm.says(site.conf, "scancel", first.split()[0])
        eventually(lambda: jobs(site) == [], within=30)
        eventually(lambda: asked(front, "two").status == 200, within=60)
        (second,) = jobs(site)
        assert second != first, "one that was cancelled from outside is not waited for"
        eventually(lambda: jobs(site) == [], within=60)
        assert asked(front, "one").cache == "HIT"
        assert jobs(site) == []
        assert asked(front, "three").status == 200
        assert len(jobs(site)) == 1
        ended(front)
    eventually(lambda: jobs(site) == [], within=20)


@pytest.mark.heavy
def test_one_line_says_why_its_tunnel_fails(site: slurm.Site, env: dict[str, str], tmp_path: Path) -> None:
    with typed(site, env, tmp_path, "--loopback-user", "nobody-here") as front:
        reply = asked(front, "hi")
        assert reply.status == 503
        assert "nobody-here@127.0.0.1: Permission denied" in reply.json["error"]["message"]
        ended(front)
    eventually(lambda: jobs(site) == [], within=20)
