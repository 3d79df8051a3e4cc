"""`proxy_fastapi.py … -- COMMAND…`: starts at once, the command with the first request, and nothing is left."""

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmpod.cli.ondemand import model_of
from llmpod.config.names import names_of_command
from llmpod.config.typed_key import without_key
from tests.proxy.front import SCRIPT, Proxy, chat_body, proxy
from tests.support import procfs
from tests.support.forks import Forks
from tests.support.net import free_port
from tests.support.process import PYTHON
from tests.support.source import ROOT
from tests.support.wait import eventually

SERVER = (sys.executable, "-m", "llmpod.sim.vllm", "--model", "org/typed")
QUESTION = b'{"model": "org/typed", "messages": [{"role": "user", "content": "hello"}]}'
# loads for ever, and takes no notice of SIGTERM
STUBBORN = (
    *(sys.executable, "-c"),
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
    *("--model", "org/typed"),
)
KEY = {"Authorization": "Bearer secret"}


@contextmanager
def started(
    env: dict[str, str], cache: Path, *options: str, command: Sequence[str] = SERVER
) -> Iterator[Proxy]:
    """With a port of its choice; the room is the repository's, one for each run."""
    environ = {**env, "CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "RUNPOD_API_KEY": "rpa_canary"}
    words = ("--port", "0", "--log-level", "DEBUG", "--api-key", "secret", *options, "--", *command)
    with proxy(environ, *words) as front:
        yield front


def servers() -> list[procfs.Process]:
    """What runs of COMMAND."""
    everyone = procfs.descendants(os.getpid())
    return [p for p in everyone if "org/typed" in p.command and "proxy_fastapi" not in p.command]


def is_deaf(pid: int) -> bool:
    """Whether the server of a run takes no notice of SIGTERM by now."""
    return any("deaf" in log.read_text() for room in rooms(pid) for log in room.rglob("machines/*/log"))


def rooms(pid: int) -> list[Path]:
    return list((ROOT / ".llmpod").glob(f"on-demand-p{pid}*"))


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_with_the_first_request_and_leaves_nothing(
    env: dict[str, str], tmp_path: Path, ending: signal.Signals
) -> None:
    with started(
        env, tmp_path / "cache", "--idle-timeout", "1" if ending is signal.SIGINT else "600"
    ) as front:
        assert front.ask(chat_body()).status == 401
        assert [m["id"] for m in front.get("/v1/models", KEY).json["data"]] == ["org/typed"]
        unknown = front.ask(chat_body("hello"), headers=KEY)
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
        assert servers() == []
        body = {**chat_body("hello"), "model": "org/typed"}
        with front.client() as client:
            client.sock.settimeout(60)
            client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), KEY)
            assert client.reply().status == 200
        running = servers()
        assert running or ending is signal.SIGINT
        assert all(
            "rpa_canary" not in Path(f"/proc/{p.pid}/environ").read_text(errors="replace") for p in running
        )
        if ending is signal.SIGINT:
            eventually(lambda: not servers(), within=30)
            assert front.ask(body, headers=KEY).cache == "HIT"
            assert servers() == []
        os.kill(front.process.pid, ending)
        eventually(lambda: front.process.code is not None, within=40)
        assert front.process.code == 0, front.process.err
        assert servers() == []
        assert rooms(front.process.pid) == []


@pytest.mark.parametrize("typed", [("--api-key", "secret"), ("--api-key=secret",)])
def test_the_servers_own_key_in_the_command_is_what_callers_send(
    env: dict[str, str], tmp_path: Path, typed: tuple[str, ...]
) -> None:
    environ = {**env, "CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    with proxy(environ, "--port", "0", "--", *SERVER, *typed) as front:
        body = {**chat_body("hello"), "model": "org/typed"}
        assert front.ask(body).status == 401
        with front.client() as client:
            client.sock.settimeout(60)
            client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), KEY)
            assert client.reply().status == 200
        assert servers()
        assert not [p for p in servers() if "secret" in p.command]
        assert "what callers must send" in front.process.err
        assert front.process.stop(within=40) == 0


def test_a_server_that_wants_another_key_is_told_at_once(env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(
        "import os, sys\nos.execv(sys.executable, [sys.executable, '-m', 'llmpod.sim.vllm', '--api-key', 'other',"
        " *sys.argv[1:]])\n"
    )
    command = (sys.executable, str(script), "--model", "org/typed")
    with started(env, tmp_path / "cache", command=command) as front:
        with front.client() as client:
            client.sock.settimeout(60)
            client.send("POST", "/v1/chat/completions", QUESTION, KEY)
            answer = client.reply()
        assert (answer.status, answer.json["error"]["code"]) == (503, "model_not_ready")
        assert "answers 401: it wants another key" in answer.json["error"]["message"]
        eventually(lambda: "start_failed" in front.process.err, within=20)
        eventually(lambda: not servers(), within=40)
        assert front.process.stop(within=40) == 0


def test_what_a_failed_start_said_outlives_the_run_until_a_good_one(
    env: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    kept, body = ROOT / ".llmpod" / f"on-demand-{port}.log", {**chat_body("hello"), "model": "org/typed"}
    crash = (sys.executable, "-c", "import sys; sys.exit('no room on the GPU')", "--model", "org/typed")
    for command, status in ((crash, 503), (SERVER, 200)):
        with started(env, tmp_path / "cache", "--port", str(port), command=command) as front:
            with front.client() as client:
                client.sock.settimeout(60)
                client.send("POST", "/v1/chat/completions", json.dumps(body).encode(), KEY)
                assert client.reply().status == status
            assert front.process.stop(within=40) == 0
            if status == 503:
                assert f"a start that failed are in {kept}" in front.process.err
                assert "no room on the GPU" in kept.read_text()
    assert not kept.exists()


def test_what_is_wrong_is_said_before_anything_starts(env: dict[str, str], forks: Forks) -> None:
    nothing = forks.run([PYTHON, str(SCRIPT), "--port", "0", "--"], env=env)
    assert (nothing.code, "Write the command" in nothing.err) == (2, True)
    tunnel = forks.run([PYTHON, str(SCRIPT), "--use-slurm", "--", "vllm"], env=env)
    assert (tunnel.code, "--loopback-user" in tunnel.err) == (2, True)
    absent = forks.run([PYTHON, str(SCRIPT), "--", "no-such-server", "--model", "m"], env=env)
    assert (absent.code, "no program 'no-such-server'" in absent.err) == (2, True)
    assert "its whole path" in absent.err
    text = forks.run([PYTHON, str(SCRIPT), "--", str(ROOT / "README.md")], env=env)
    assert (text.code, "may execute" in text.err) == (2, True)
    assert not (ROOT / ".llmpod" / "on-demand-8100").exists()
    listed = forks.run([PYTHON, str(SCRIPT), "--help", "--"], env=env).expect().out
    for option in ("--target-port", "--idle-timeout", "--ping-path", "--srun-cmd", "--loopback-host"):
        assert option in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--srun-cmd", "srun --mem=1G"), "--srun-cmd means nothing without --use-slurm"),
        (("--loopback-user", "me", "--loopback-host", "here"), "--loopback-host mean nothing without"),
        (("--idle-timeout", "-1"), "argument --idle-timeout: '-1' is not"),
        (("--idle-timeout", "0"), "argument --idle-timeout: '0' is not"),
        (("--idle-timeout", "99999999999"), "argument --idle-timeout: '99999999999' is not"),
        (("--ping-path", "health"), "argument --ping-path: 'health' is not"),
        (("--target-port", "65536"), "argument --target-port: '65536' is not"),
        (("--port", "8123", "--target-port", "8123"), "--port and --target-port are the same"),
    ],
)
def test_an_option_that_means_nothing_is_refused_by_its_name(
    env: dict[str, str], forks: Forks, words: tuple[str, ...], said: str
) -> None:
    refused = forks.run([PYTHON, str(SCRIPT), *words, "--", *SERVER], env=env)
    assert (refused.code, said in refused.err) == (2, True), refused.err


def test_a_port_of_the_command_that_somebody_has_is_said_at_once(env: dict[str, str], forks: Forks) -> None:
    """Else the first request would wait until its time is over."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        number = str(holder.getsockname()[1])
        refused = forks.run(
            [PYTHON, str(SCRIPT), "--port", "0", "--target-port", number, "--", *SERVER], env=env
        )
    assert refused.code == 98, refused.err
    assert f"Port {number} is in use by" in refused.err
    assert "leave `--target-port` out" in refused.err


def test_a_command_line_that_is_not_understood_says_what_was_meant(env: dict[str, str], forks: Forks) -> None:
    forgotten = forks.run([PYTHON, str(SCRIPT), "--idle-timeout", "5", "vllm", "serve", "m"], env=env)
    assert (forgotten.code, "write `--` before it" in forgotten.err) == (2, True)
    before = forks.run([PYTHON, str(SCRIPT), "vllm", "serve", "m", "--", "--fast"], env=env)
    assert (before.code, "stand after `--`" in before.err) == (2, True)
    misspelt = forks.run([PYTHON, str(SCRIPT), "--idel-timeout", "5", "--", "vllm"], env=env)
    assert (misspelt.code, "did you mean --idle-timeout?" in misspelt.err) == (2, True)
    manager = forks.run([PYTHON, str(ROOT / "manage_pod.py"), "status", "--jsn"], env=env)
    assert (manager.code, "did you mean --json?" in manager.err) == (2, True)


@pytest.mark.parametrize(
    ("command", "model"),
    [
        ("vllm serve Qwen/Qwen2.5-7B-Instruct --max-model-len 4096", "Qwen/Qwen2.5-7B-Instruct"),
        ("python -m vllm.entrypoints.openai.api_server --model tiiuae/falcon3", "tiiuae/falcon3"),
        ("llama-server -m /models/tiny model.gguf --alias tiny", "tiny"),
        ("llama-server --model=/models/Tiny-Q4.gguf", "Tiny-Q4"),
        ("/opt/bin/my-server --fast", "my-server"),
        ("vllm serve --port {port}", "vllm"),
    ],
)
def test_the_model_is_read_from_the_command(command: str, model: str) -> None:
    assert model_of(command.split()) == model


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("vllm serve Qwen/Qwen3-8B --port 1", ("Qwen/Qwen3-8B",)),
        ("/venv/bin/vllm serve /models/mine", ("/models/mine",)),
        ("python -m vllm.entrypoints.openai.api_server --model=org/x", ("org/x",)),
        ("vllm serve org/x --served-model-name a b --port 1", ("a", "b")),
        ("python -m sglang.launch_server --model-path org/x --served-model-name=a", ("a",)),
        ("vllm serve org/x --enable-lora --lora-modules sql=/lora", ()),
        ("vllm serve --port {port}", ()),
        ("llama-server -m tiny.gguf --alias tiny", ()),
        ("my-server --model org/x", ()),
    ],
)
def test_its_names_are_known_where_the_command_says_them_for_certain(
    command: str, names: tuple[str, ...]
) -> None:
    assert names_of_command(command.split()) == names


@pytest.mark.parametrize(
    ("command", "kept", "keys"),
    [
        ("vllm serve org/x --api-key a --port 1", "vllm serve org/x --port 1", ("a",)),
        ("python -m vllm.entrypoints.openai.api_server --api-key=a --model m", None, ("a",)),
        ("vllm serve org/x --api-key a b", "vllm serve org/x", ("a", "b")),
        ("/opt/llama-server --api-key a,b -m x.gguf", "/opt/llama-server -m x.gguf", ("a", "b")),
        ("my-server --api-key a", "my-server --api-key a", ()),
    ],
)
def test_a_key_is_taken_out_where_the_server_has_another_way_to_get_one(
    command: str, kept: str | None, keys: tuple[str, ...]
) -> None:
    left, found = without_key(command.split())
    assert found == keys
    assert "--api-key" not in " ".join(left) or not keys
    assert kept is None or left == kept.split()
