"""The README is true: every command, key, variable and address in it is executed or looked up for real."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from llmpod.config import PodConfig
from llmpod.config.proxy import VARIABLES
from llmpod.sim.launch import Simulator
from tests.support.forks import Forks
from tests.support.install import FAST
from tests.support.net import free_port
from tests.support.process import PYTHON, Finished, run, running
from tests.support.sims import forked
from tests.support.source import ROOT
from tests.support.wait import eventually

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = "demo/tiny-chat"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[str]:
    """First cells of the table below a heading."""
    section = README.split(heading, 1)[1].split("\n#", 1)[0]
    return [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| `")]


def names(cells: list[str]) -> set[str]:
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if "manage_pod.py" in line]
CRON = blocks("cron")[0].splitlines()


@pytest.fixture
def sim(forks: Forks, env: dict[str, str]) -> Iterator[Simulator]:
    with forked(forks, env, **FAST) as simulator:
        yield simulator


@pytest.fixture
def home(tmp_path: Path, sim: Simulator) -> Path:
    """A HOME with the key."""
    key = tmp_path / "home/.config/llmpod/runpod_api_key"
    key.parent.mkdir(parents=True)
    key.write_text(sim.key + "\n")
    key.chmod(0o600)
    return tmp_path / "home"


def configured(directory: Path, sim: Simulator) -> Path:
    """A configuration that means the simulator."""
    config = {
        "model": MODEL,
        "gpu_type_id": "NVIDIA L4",
        "runpod_api_url": sim.api_url,
        "hub_url": sim.hub_url,
        "runpod_proxy_url": sim.proxy_url,
        "proxy_port": free_port(),
        "cache_dir": "cache",
        "create_grace_seconds": 2,
        "poll_interval_seconds": 0.1,
        "initial_wait_seconds": 0,
    }
    path = directory / "pod_config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def clone(tmp_path: Path, home: Path, sim: Simulator) -> Iterator[Path]:
    """The repository as a new user has it."""
    target = tmp_path / "llmpod clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in listed.stdout.decode().split("\0"):
        if name and not name.startswith("tests/") and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)
    configured(target, sim)
    yield target
    cron_shell(target, f"python3 '{target}/manage_pod.py' --shutdown")


def cron_shell(clone: Path, line: str) -> "subprocess.CompletedProcess[str]":
    """What cron does with a line: no exported variables, HOME as working directory, this PATH."""
    home = clone.parent / "home"
    return subprocess.run(
        ["env", "-i", f"HOME={home}", "PATH=/usr/bin:/bin", "sh", "-c", line],
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def as_cron(clone: Path, line: str) -> str:
    """A crontab line of the README for this clone; returns what it logged."""
    command = line.split(maxsplit=5)[5].replace("/path/to/llmpod/manage_pod.py", f"'{clone}/manage_pod.py'")
    done = cron_shell(clone, command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (clone.parent / "home/.llmpod-cron.log").read_text()


def test_the_cron_lines_work_in_crons_environment_and_a_command_in_the_clone(
    clone: Path, sim: Simulator
) -> None:
    watchdog, midnight = CRON
    assert watchdog.startswith("*/5 * * * * ")
    assert midnight.startswith("0 0 * * * ")
    for _ in range(3):
        as_cron(clone, watchdog)
    assert "default ready" in as_cron(clone, watchdog)
    assert len(sim.alive()) == 1
    assert "down" in as_cron(clone, midnight)
    assert sim.alive() == []
    as_cron(clone, watchdog)
    assert sim.alive() == []
    (status,) = (line for line in COMMANDS if "manage_pod.py status" in line)
    typed = cron_shell(clone, f"cd '{clone}' && {status}")
    assert (typed.returncode, MODEL in typed.stdout) == (0, True), typed.stderr


@pytest.fixture
def typed(state_dir: Path, home: Path, sim: Simulator, forks: Forks) -> Iterator[Callable[[str], Finished]]:
    """Runs a line of the README, by the checkout that is tested and with the configuration of a user of its own."""
    script = [PYTHON, str(ROOT / "manage_pod.py"), "--config", str(configured(state_dir, sim))]

    def run(line: str) -> Finished:
        python, name, *words = shlex.split(line)
        assert (python, name) == ("python3", "manage_pod.py")
        environ = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        return forks.run([*script, *words], env=environ, cwd=state_dir, within=90)

    yield run
    run("python3 manage_pod.py --shutdown").expect()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_accepted(typed: Callable[[str], Finished], line: str) -> None:
    if "schedule install" in line:  # the crontab is this machine's, not the test's
        line = line.replace(" #", " --dry-run #", 1)
    if " logs " in line:  # there is something to show
        typed("python3 manage_pod.py")
    if " bench " in line:  # what is timed must be ready
        eventually(lambda: "default ready" in typed("python3 manage_pod.py").out, within=60)
    call, _, comment = line.partition("#")
    for flags in ["", *re.findall(r"\((--[\w-]+)", comment)]:
        done = typed(f"{call} {flags}")
        # Nothing is scheduled here: `doctor --as-cron` says so.
        found = re.search(r"^[1-9]\d* problem\(s\)", done.out, re.MULTILINE) if " doctor " in line else None
        assert done.code == (1 if found else 0), done.out + done.err
        assert done.out
        assert "Traceback" not in done.err


@pytest.mark.parametrize("target", ["run", "test", "install", "test-long"])
def test_make_knows_its_targets(target: str) -> None:
    run(["make", "-n", target]).expect()


def test_make_run_shows_the_demo_and_the_first_request_of_the_readme_works(
    env: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    config = str(tmp_path / "pod_config.json")
    argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, "run", "--port", str(port)]
    curl = next(block for block in blocks("sh") if block.startswith("curl "))
    with running(argv, env=env) as demo:
        demo.says("ready, here is your first answer", within=60)
        answer = run(["sh", "-c", curl.replace("localhost:8000", f"localhost:{port}")], env=env).expect()
        assert json.loads(answer.out)["choices"][0]["message"]["content"]
        assert demo.stop(within=60) == 0


def test_every_config_key_is_documented_and_every_documented_key_exists() -> None:
    documented = {
        name for name in names(table("## `pod_config.json`")) if name.islower() or name == "modelStoreId"
    }
    urls = {"runpod_api_url", "runpod_proxy_url", "runpod_graphql_url", "hub_url"}
    internal = {"schema_ref", "create_grace_seconds", *urls}
    assert documented == set(PodConfig.model_fields) - internal


def test_every_variable_of_the_proxy_exists() -> None:
    documented = names(table("## The proxy alone"))
    assert documented - {"/v1/*"} <= set(VARIABLES) | names(table("### Addresses"))
    promised = {"RUNPOD_ENDPOINT", "CACHE_DIR", "MAX_CACHE_SIZE", "CACHE_SIZE_BYTES", "ENABLE_PROFILING"}
    assert promised | {"PREWARM_CACHE", "USE_HTTPS", "SSL_CERT", "SSL_KEY", "PORT"} <= documented


def test_every_address_answers_when_the_proxy_runs_alone(env: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    line = next(line for block in blocks("sh") for line in block.splitlines() if "proxy_fastapi.py" in line)
    nobody = line.replace("127.0.0.1:9000", f"127.0.0.1:{free_port()}")
    variables = dict(word.split("=", 1) for word in nobody.split() if "=" in word)
    cache = str(tmp_path / "cache")
    alone = {**env, **variables, "PORT": str(port), "CACHE_DIR": cache, "ENABLE_PROFILING": "true"}
    every = [path for path in names(table("### Addresses")) if "*" not in path]
    paths = [path.split()[-1] for path in every if not path.startswith("POST ")]
    assert {"/health", "/livez", "/readyz", "/metrics", "/dashboard", "/debug/cache"} < set(paths)
    with running([PYTHON, ROOT / "proxy_fastapi.py"], env=alone, cwd=tmp_path):
        base = f"http://127.0.0.1:{port}"
        eventually(
            lambda: requests.get(base + "/livez", timeout=2).ok, within=20, ignoring=requests.ConnectionError
        )
        for path in paths:
            assert requests.get(base + path, timeout=5).status_code in (
                (200, 503) if path == "/readyz" else (200,)
            ), path
        refused = requests.get(base + "/v1/models", timeout=5)
        assert refused.json()["error"]["code"] == "upstream_unreachable"
