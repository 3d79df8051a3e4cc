"""Commands to a model server, which a POST below /v1 can be, and who may give them."""

from pathlib import Path

import pytest

from tests.proxy.front import Client, Proxy
from tests.proxy.keys import KEYS
from tests.proxy.stub import Stub
from tests.proxy.test_edge_callers import MAY, keyed

__all__ = ["keyed"]

COMMANDS = (
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/coder/v1/load_lora_adapter", "/v1/model/load"),
    *("/v1/unload%5Flora%5Fadapter", "/v1//load_lora_adapter/", "/v1/internal/lora/load", "/v1/lora/unload"),
)


@pytest.mark.parametrize("who", [None, "coder", *MAY])
def test_who_may_give_the_model_server_a_command(keyed: tuple[Proxy, Stub, Path], who: str | None) -> None:
    """Found by a review: with the right to ask, adapters could be loaded, and everybody was answered by them."""
    front, server, _ = keyed
    server.turns.clear()
    headers = {} if who is None else {"x-api-key": KEYS[who]}
    for path in COMMANDS:
        with Client(front.port) as client:
            client.send("POST", path, b'{"lora_name": "x", "lora_path": "/x"}', headers)
            reply = client.reply()
        expected = (200, 404) if who == "admin" else (401, 429) if who in (None, "expired") else (403,)
        assert reply.status in expected, (path, reply.body)
    asked = sum(path.startswith("/v1") for path in COMMANDS)
    assert len(server.turns) == (asked if who == "admin" else 0)


@pytest.mark.parametrize(
    "path",
    [
        "/sleep",
        "/wake_up",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/update_weights",
        "/v1/../sleep",
        "//sleep",
    ],
)
def test_commands_beside_v1_are_nobodys(keyed: tuple[Proxy, Stub, Path], path: str) -> None:
    front, server, _ = keyed
    server.turns.clear()
    with Client(front.port) as client:
        client.send("POST", path, b"{}", {"x-api-key": KEYS["admin"]})
        assert client.reply().status in (400, 404)
    assert not server.turns
