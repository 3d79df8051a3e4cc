"""The fake as a process: loading, pace, the end, and those who leave."""

import asyncio
import json
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmpod.sim.vllm.options import VllmOptions
from llmpod.sim.vllm.server import serve
from tests.support import procfs
from tests.support.net import HOST, free_port, listens
from tests.support.process import PYTHON, run, running
from tests.support.source import ROOT
from tests.support.wait import eventually

CHAT = "/v1/chat/completions"


def test_the_port_opens_only_after_loading(env: dict[str, str]) -> None:
    port = free_port()
    words = [PYTHON, "-m", "llmpod.sim.vllm", "--model", "m", "--port", str(port), "--load-seconds", "1.0"]
    with running(words, env=env) as program:
        assert not listens(port)
        program.says("url")
        assert json.loads(program.out) == {"url": f"http://127.0.0.1:{port}"}
        assert listens(port)
        program.signal(signal.SIGTERM)
        assert program.wait() == 0


@pytest.mark.skipif(not procfs.available(), reason="needs /proc to see when signals are caught")
def test_sigterm_while_loading_ends_it(env: dict[str, str]) -> None:
    with running(
        [PYTHON, "-m", "llmpod.sim.vllm", "--model", "m", "--load-seconds", "60"], env=env
    ) as program:
        eventually(lambda: _catches_term(program.pid))
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert program.out == ""


def _catches_term(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (mask,) = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (signal.SIGTERM - 1) & 1)


def test_sigterm_aborts_what_runs_in_the_recorded_way(start: Any) -> None:
    with start("--tokens-per-second", "20") as fake:
        answers: dict[bool, httpx.Response] = {}

        def ask(*, stream: bool) -> None:
            body = fake.chat(max_tokens=2000, ignore_eos=True, stream=stream)
            answers[stream] = httpx.post(
                fake.url + CHAT, json=body, headers={"authorization": f"Bearer {fake.key}"}, timeout=20
            )

        threads = [threading.Thread(target=ask, kwargs={"stream": stream}) for stream in (True, False)]
        for thread in threads:
            thread.start()
        eventually(lambda: 'running{engine="0",model_name="sim/tiny"} 2.0' in fake.http.get("/metrics").text)
        fake.program.signal(signal.SIGTERM)
        for thread in threads:
            thread.join(10)
        assert fake.program.wait(within=5) == 0
        *_, last, done = [line for line in answers[True].text.splitlines() if line]
        assert done == "data: [DONE]"
        assert json.loads(last[6:])["choices"][0]["finish_reason"] == "abort"
        assert answers[False].status_code == 200
        assert answers[False].json()["choices"][0]["finish_reason"] == "abort"


def test_a_stalled_answer_does_not_hold_up_the_end(start: Any) -> None:
    with (
        start() as fake,
        fake.http.stream(
            "POST", CHAT, json=fake.chat(stream=True), headers={"x-sim-fault": "stall@1"}
        ) as answer,
    ):
        assert next(answer.iter_raw())
        fake.program.signal(signal.SIGTERM)
        assert fake.program.wait(within=6) == 0


def test_it_ends_with_its_parent(env: dict[str, str]) -> None:
    with subprocess.Popen(["sleep", "600"], env=env) as other:
        words = [PYTHON, "-m", "llmpod.sim.vllm", "--model", "m", "--parent-pid", str(other.pid)]
        with running(words, env=env) as program:
            program.says("url")
            other.kill()
            other.wait()
            assert program.wait(within=5) == 0


def test_an_answer_nobody_waits_for_is_stopped(start: Any) -> None:
    with start("--tokens-per-second", "20") as fake:
        body = fake.chat(max_tokens=2000, ignore_eos=True)
        with fake.http.stream("POST", CHAT, json={**body, "stream": True}) as answer:
            assert next(answer.iter_raw())
        with pytest.raises(httpx.ReadTimeout):
            fake.http.post(CHAT, json=body, timeout=0.3)
        eventually(lambda: fake.stats()["running"] == 0)
        assert fake.stats()["aborted"] == 2
        metrics = fake.http.get("/metrics").text
        assert (
            'request_success_total{engine="0",finished_reason="abort",model_name="sim/tiny"} 2.0' in metrics
        )
        assert 'num_requests_running{engine="0",model_name="sim/tiny"} 0.0' in metrics


def test_requests_wait_for_a_place(start: Any) -> None:
    with start("--tokens-per-second", "20", "--max-num-seqs", "1") as fake:
        answers: list[int] = []
        body = fake.chat(max_tokens=8, ignore_eos=True)
        threads = [
            threading.Thread(target=lambda: answers.append(fake.post(CHAT, body).status_code)) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: 'waiting{engine="0",model_name="sim/tiny"} 1.0' in fake.http.get("/metrics").text)
        for thread in threads:
            thread.join(15)
        assert answers == [200, 200]


def test_the_first_token_takes_its_time(start: Any) -> None:
    with start("--first-token-seconds", "0.3", "--tokens-per-second", "50") as fake:
        seconds = fake.post(CHAT, fake.chat(max_tokens=11, ignore_eos=True)).elapsed.total_seconds()
        assert seconds >= 0.3 + 10 / 50


def test_a_pod_can_ignore_its_key(start: Any) -> None:
    with start("--ignore-key") as fake:
        assert httpx.get(f"{fake.url}/v1/models").status_code == 200


def test_the_same_request_gets_the_same_answer_from_every_process(start: Any) -> None:
    def answer() -> str:
        with start() as fake:
            return str(fake.post(CHAT, fake.chat()).json()["choices"][0]["message"]["content"])

    assert answer() == answer()


def test_without_the_libraries_it_says_where_they_are(env: dict[str, str]) -> None:
    """Typed by somebody whose python3 is the system's: -S leaves out all installed packages."""
    words = [PYTHON, "-S", "-m", "llmpod.sim.vllm"]
    assert "--model" in run([*words, "--help"], env=env).expect().out
    refused = run([*words, "--model", "m"], env=env).expect(1).err
    assert "Run `make install`" in refused
    assert f"{ROOT}/.venv/bin/python -m llmpod.sim.vllm" in refused
    assert "Traceback" not in refused


def test_it_starts_without_heavy_imports(env: dict[str, str]) -> None:
    code = "import llmpod.sim.vllm.server, sys; print(*{'fastapi', 'pydantic'} & set(sys.modules))"
    assert (
        subprocess.run(
            [PYTHON, "-c", code], env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
        ).stdout
        == b"\n"
    )


def test_it_runs_in_a_loop_that_is_running_already() -> None:
    async def both() -> list[int]:
        over, urls = asyncio.Event(), asyncio.Queue[str]()
        options = VllmOptions(model="m", load_seconds=0.1)
        serving = asyncio.ensure_future(serve(options, (HOST, 0), over=over, on_ready=urls.put_nowait))
        url = await urls.get()
        async with httpx.AsyncClient() as http:
            statuses = [(await http.get(f"{url}{path}")).status_code for path in ("/health", "/v1/models")]
        over.set()
        await serving
        return statuses

    assert asyncio.run(both()) == [200, 200]
