import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import pytest

from tests.support.process import PYTHON, Running, running
from tests.support.wait import eventually


@dataclass
class Fake:
    """A fake vLLM as a process, and a client of it."""

    url: str
    key: str
    program: Running
    http: httpx.Client

    def chat(self, text: str = "What is the capital of France?", /, **fields: Any) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}], **fields}

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, content=content, headers=named)

    def events(self, path: str, body: dict[str, Any], **headers: str) -> list[str]:
        """The data of the events of a stream, [DONE] included."""
        answer = self.post(path, {**body, "stream": True}, **headers)
        assert answer.status_code == 200, answer.text
        return [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]

    def chunks(self, path: str, body: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
        """The chunks of a stream that ends as it should."""
        *events, last = self.events(path, body, **headers)
        assert last == "[DONE]"
        return [json.loads(event) for event in events]

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/__sim/stats").json()
        return found


class Start(Protocol):
    def __call__(self, *argv: str, model: str = "sim/tiny") -> Any: ...


@contextmanager
def fake_vllm(env: dict[str, str], *argv: str, model: str = "sim/tiny") -> Iterator[Fake]:
    """Starts a fake, waits until it says where it listens, and ends it."""
    key = f"sk-{secrets.token_hex(8)}"
    words = [PYTHON, "-m", "llmpod.sim.vllm", "--port", "0", "--model", model, *argv]
    with running(words, env={**env, "VLLM_API_KEY": key}) as program:
        line = eventually(lambda: program.out.splitlines() or program.code is not None, within=15)
        assert line is not True, program.err
        url = json.loads(program.out)["url"]
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=20) as http:
            yield Fake(url, key, program, http)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fake]:
    """One fast fake for the tests of a module that leave no mark on each other."""
    home = tmp_path_factory.mktemp("fake")
    with fake_vllm({"HOME": str(home), "PATH": "/usr/bin:/bin"}, "--served-model-name", "tiny") as fake:
        yield fake


@pytest.fixture
def fake(shared: Fake) -> Fake:
    shared.http.post("/__sim/reset")
    return shared


@pytest.fixture
def start(env: dict[str, str]) -> Start:
    def starting(*argv: str, model: str = "sim/tiny") -> Any:
        return fake_vllm(env, *argv, model=model)

    return starting
