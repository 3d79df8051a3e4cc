"""Fixtures for the proxy: a scripted model server, and one proxy in front of it, shared by the tests of a file."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.stub import Stub, plain, stub


@pytest.fixture(scope="module")
def _server() -> Iterator[Stub]:
    with stub() as server:
        yield server


@pytest.fixture
def server(_server: Stub) -> Stub:
    """The model server with its plain script and an empty list of turns."""
    _server.script = plain
    _server.turns.clear()
    return _server


@pytest.fixture(scope="module")
def front(_server: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy in front of ``server``; its time-outs are short."""
    cache = tmp_path_factory.mktemp("cache") / "entries"
    environ = settings(cache, _server.url, LLMPOD_IDLE_SECONDS="1", LLMPOD_FIRST_BYTE_SECONDS="2")
    with proxy({**_base(), **environ}) as running:
        yield running


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _base() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
