"""The script by itself, between a RunPod and a vLLM that say exactly what a case needs and remember who asked."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from llmpod.backends.runpod_switch import Switch, command
from tests.backends.switched import LATE, tool, tools
from tests.support import procfs
from tests.support.process import Running, running
from tests.support.source import ROOT
from tests.support.wait import eventually

pytestmark = pytest.mark.skipif(not procfs.available(), reason="the script reads /proc/uptime")
POD_KEY, MODEL_KEY = "rpa_of_this_pod", "sk-of-the-model"
SERVED = 'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"} 9.0\n'
RUNNING = 'vllm:num_requests_running{engine="0",model_name="tiny"} 3.0\n'
TOKENS = 'vllm:generation_tokens_total{engine="0",model_name="tiny"} 111.0\n'
RECORDED = ROOT.parent / "shared/real/vllm/captures/metrics.http"


@dataclass
class Both:
    """RunPod's API and vLLM at one address. ``page`` is what /metrics says."""

    page: str = SERVED
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    port: int = 0

    def calls(self, method: str) -> list[str]:
        """The paths under which the API was called that way."""
        return [path for how, path, *_ in self.asked if how == method and path.startswith("/v2/")]


@contextmanager
def serving(both: Both) -> Iterator[Both]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0"))).decode()
            key = self.headers.get("authorization", "")
            both.asked.append((self.command, self.path, key, body))
            said = both.page.encode() if self.path == "/metrics" else b""
            status = 204 if self.command == "DELETE" else 200
            self.send_response(status)
            if status == 200:
                self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the names that http.server looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
            """Nothing: `asked` is the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        both.port = server.server_port
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield both
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def switched(
    both: Both, directory: Path, *, lasts: float = 600, heartbeat: int | None = None
) -> Iterator[Running]:
    """The script in a container whose vLLM is somebody else."""
    path = tools(directory / "bin", "curl")
    tool(directory / "bin", "vllm", "exec sleep 600")
    switch = Switch(
        time.time() + lasts, f"http://127.0.0.1:{both.port}", interval_seconds=1, heartbeat_seconds=heartbeat
    )
    keys = {"RUNPOD_API_KEY": POD_KEY, "VLLM_API_KEY": MODEL_KEY}
    env = {**switch.env, **keys, "RUNPOD_POD_ID": "pod1", "PATH": path}
    words = command(("org/m", "--port", str(both.port)))
    with running([*words["entrypoint"], *words["cmd"]], env=env) as program:
        yield program


def test_a_count_of_running_requests_that_is_stuck_is_no_life(tmp_path: Path) -> None:
    """vLLM goes on telling it when all clients left at once (vllm#22545)."""
    with serving(Both(SERVED + RUNNING + TOKENS)) as both, switched(both, tmp_path, heartbeat=2):
        eventually(lambda: both.calls("DELETE"), within=4 + LATE, every=0.1)


def test_a_promise_to_delete_that_is_not_kept_is_followed_by_stop(tmp_path: Path) -> None:
    with serving(Both()) as both, switched(both, tmp_path, lasts=1):
        eventually(lambda: both.calls("POST"), within=12 + LATE, every=0.1)
        assert both.calls("DELETE") == ["/v2/pods/pod1"] * 9
        assert both.calls("POST") == ["/v2/pods/pod1/action"]
    assert [json.loads(body) for how, _, _, body in both.asked if how == "POST"] == [{"action": "stop"}]


def test_each_key_goes_to_its_own_party(tmp_path: Path) -> None:
    with serving(Both()) as both, switched(both, tmp_path, heartbeat=2):
        eventually(lambda: both.calls("DELETE"), within=4 + LATE, every=0.1)
    keys = {path.split("/")[1]: set[str]() for _, path, _, _ in both.asked}
    for _, path, key, _ in both.asked:
        keys[path.split("/")[1]].add(key)
    assert keys == {"metrics": {f"Bearer {MODEL_KEY}"}, "v2": {f"Bearer {POD_KEY}"}}


def test_a_page_without_the_counter_is_asked_about_by_one_request(tmp_path: Path) -> None:
    """A server that was never asked counts nothing yet: the switch makes it count, or learns that it does not."""
    with serving(Both("")) as both, switched(both, tmp_path, lasts=5, heartbeat=2):
        eventually(lambda: both.calls("DELETE"), within=6 + LATE, every=0.1)
        looked = [path for _, path, _, _ in both.asked if path in ("/metrics", "/v1/models")]
    assert looked[:3] == ["/metrics", "/v1/models", "/metrics"]
    assert len(looked) >= 9, "it was killed by a heartbeat that nobody could judge"


@pytest.mark.skipif(not RECORDED.is_file(), reason=f"no recordings at {RECORDED}")
def test_a_real_servers_page_is_understood(tmp_path: Path) -> None:
    page = RECORDED.read_text(encoding="utf-8").partition("\n\n")[2]
    counted = 'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"}'
    assert f"{counted} 9.0" in page
    with serving(Both(page)) as both, switched(both, tmp_path, heartbeat=3) as program:
        program.says("the heartbeat counts now")
        until = time.time() + 6

        def used() -> bool:
            both.page = page.replace(f"{counted} 9.0", f"{counted} {time.time()}")
            return time.time() > until

        eventually(used, within=8, every=0.3)
        assert both.calls("DELETE") == []
        eventually(lambda: both.calls("DELETE"), within=5 + LATE, every=0.1)
        assert not [path for _, path, _, _ in both.asked if path == "/v1/models"]


def test_without_vllm_the_older_program_is_started(tmp_path: Path) -> None:
    """Images of before `vllm serve`: `python3 -m vllm.entrypoints.openai.api_server --model …`."""
    with serving(Both()) as both:
        path = tools(tmp_path / "bin", "curl")
        tool(tmp_path / "bin", "python3", 'echo "started with $*"')
        env = {**Switch(time.time() + 600, f"http://127.0.0.1:{both.port}").env, "PATH": path}
        words = command(("org/m", "--port", str(both.port)))
        with running([*words["entrypoint"], *words["cmd"]], env=env) as program:
            program.says(
                f"started with -m vllm.entrypoints.openai.api_server --model org/m --port {both.port}"
            )
