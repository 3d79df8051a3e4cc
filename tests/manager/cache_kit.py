"""Not a test: a cache directory that a real proxy filled, and `cache …` run on it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmpod.cache import Contents
from llmpod.cli.main import main
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import Stub, stub
from tests.support.wait import eventually


@dataclass
class Kit:
    """A directory, a way to run the command on it, and the base of all questions."""

    home: Path
    capsys: pytest.CaptureFixture[str]
    endpoint: str = ""

    def write(self, **keys: object) -> None:
        config = {"model": "org/m", "cache_dir": "cache", "state_file": "state/pod_state.json", **keys}
        (self.home / "state").mkdir(exist_ok=True)
        (self.home / "pod_config.json").write_text(json.dumps(config))

    @property
    def cache_dir(self) -> Path:
        return self.home / "cache"

    def __call__(self, *argv: str, code: int = 0, environ: dict[str, str] | None = None) -> str:
        self.capsys.readouterr()
        found = main(
            ["cache", argv[0], "--config", str(self.home / "pod_config.json"), *argv[1:]], environ or {}
        )
        out, err = self.capsys.readouterr()
        assert found == code, (found, out, err)
        return out or err

    @property
    def alone(self) -> tuple[str, ...]:
        """What names a proxy that runs without the manager."""
        return "--endpoint", self.endpoint, "--dir", str(self.cache_dir)

    def json(self, *argv: str, code: int = 0, environ: dict[str, str] | None = None) -> Any:
        return json.loads(self(*argv, "--json", code=code, environ=environ))

    def why(
        self, body: dict[str, Any], *more: str, code: int = 1, environ: dict[str, str] | None = None
    ) -> Any:
        return self.json("why", json.dumps(body), *self.alone, *more, code=code, environ=environ)


@pytest.fixture
def kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Kit:
    made = Kit(tmp_path, capsys)
    made.write()
    return made


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub() as running:
        yield running


@pytest.fixture
def front(kit: Kit, server: Stub, env: dict[str, str]) -> Iterator[Proxy]:
    kit.endpoint = server.url
    with proxy({**env, **settings(kit.cache_dir, server.url)}) as running:
        yield running


def filled(front: Proxy) -> None:
    front.ask(chat_body("first", temperature=0, tools=[{"name": "f", "description": "finds a file"}]))
    front.ask(chat_body("second", stream=True))
    front.ask({"model": "e", "input": "text"}, path="/v1/embeddings")


def eventually_stored(kit: Kit, count: int) -> None:
    """What a proxy has answered is on disk a moment later."""
    eventually(lambda: kit.cache_dir.exists() and len(Contents(kit.cache_dir)) == count)
