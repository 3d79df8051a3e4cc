"""The list of models: ours while nothing runs, the server's with ours beside it when it does."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from llmpod.model import Phase
from tests.proxy.front import Proxy, proxy, settings
from tests.proxy.stub import Stub, Turn, stub
from tests.proxy.test_keeper import READY, running, write
from tests.support.wait import eventually

RECORD = replace(READY, config={"max_model_len": 8192}, deadline=1e9 + 3600)
OWN = {
    "id": "served",
    "object": "model",
    "created": 7,
    "owned_by": "vllm",
    "max_model_len": 4096,
    "x": [None],
}


@pytest.fixture
def state_file(state_dir: Path) -> Path:
    return state_dir / "pod_state.json"


@pytest.fixture
def down(state_file: Path, cache_dir: Path, env: dict[str, str]) -> Iterator[Proxy]:
    """Nothing runs, and it is known what ran."""
    write(state_file, replace(RECORD, phase=Phase.STOPPED))
    with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file))) as front:
        yield front


@pytest.fixture
def up(down: Proxy, state_file: Path) -> Iterator[tuple[Proxy, Stub]]:
    with stub() as server:
        server.script = _lists
        write(state_file, replace(RECORD, base_url=server.url))
        eventually(lambda: running(down))
        yield down, server


def _lists(turn: Turn) -> None:
    assert (turn.method, turn.target) == ("GET", "/v1/models")
    other = {"id": "lora-1", "object": "model", "parent": "served"}
    turn.reply(json.dumps({"object": "list", "data": [OWN, other], "extra": 1}).encode())


def test_what_would_run(down: Proxy) -> None:
    listed = down.get("/v1/models")
    (entry,) = listed.json["data"]
    wanted: dict[str, Any] = {
        "id": "served",
        "object": "model",
        "owned_by": "llmpod",
        "root": "org/model",
        "status": "stopped",
        "max_model_len": 8192,
        "usd_per_hour": 0.5,
        "aliases": ["org/model"],
    }
    assert wanted.items() <= entry.items()
    assert isinstance(entry["created"], int)
    for name in ("served", "org/model", "org%2Fmodel"):
        assert down.get(f"/v1/models/{name}").json == entry
    head = down.get("/v1/models", method="HEAD")
    assert (head.body, head.headers["content-length"]) == (b"", str(len(listed.body)))


def test_what_nobody_limits_has_no_deadline(down: Proxy, state_file: Path) -> None:
    assert "deadline" in down.get("/v1/models").json["data"][0]
    write(state_file, replace(RECORD, phase=Phase.STOPPED, deadline=1e9 + 10 * 365 * 86400))
    eventually(lambda: "deadline" not in down.get("/v1/models").json["data"][0])
    assert down.get("/dashboard").json["models"][0]["deadline"] is None


def test_what_would_run_though_nothing_ever_ran(
    state_file: Path, cache_dir: Path, env: dict[str, str]
) -> None:
    more = {"LLMPOD_STATE": str(state_file), "LLMPOD_MODELS": "mine,org/m", "LLMPOD_MAX_MODEL_LEN": "4096"}
    with proxy(env | settings(cache_dir, **more)) as front:
        (entry,) = front.get("/v1/models").json["data"]
        assert (entry["id"], entry["aliases"], entry["max_model_len"]) == ("mine", ["org/m"], 4096)
        assert (entry["root"], entry["status"], "usd_per_hour" in entry) == ("org/m", "stopped", False)


def test_the_servers_list_with_ours_beside_it(up: tuple[Proxy, Stub]) -> None:
    front, server = up
    document = front.get("/v1/models").json
    assert document["extra"] == 1
    served, lora = document["data"]
    assert OWN.items() <= served.items()  # the server's own length stays
    assert (served["status"], served["usd_per_hour"], served["aliases"]) == ("ready", 0.5, ["org/model"])
    assert lora == {"id": "lora-1", "object": "model", "parent": "served"}
    assert front.get("/v1/models/lora-1").json == lora
    assert front.get("/v1/models/org/model").json == served
    assert front.get("/v1/models", method="HEAD").status == 200
    assert {turn.method for turn in server.turns} == {"GET"}


def test_a_server_that_does_not_list_us_is_completed(up: tuple[Proxy, Stub]) -> None:
    front, server = up
    server.script = lambda turn: turn.reply(b'{"object": "list", "data": []}')
    assert [entry["id"] for entry in front.get("/v1/models").json["data"]] == ["served"]


@pytest.mark.parametrize("odd", [b'{"models": []}', b"[1]", b'{"data": 3}', b'{"data": [{}]}', b"no json"])
def test_what_is_no_list_passes_as_it_is(up: tuple[Proxy, Stub], odd: bytes) -> None:
    front, server = up
    server.script = lambda turn: turn.reply(odd)
    assert front.get("/v1/models").body == odd
    assert front.get("/v1/models/served").status == 404


def test_a_name_that_nobody_has(up: tuple[Proxy, Stub]) -> None:
    front, _ = up
    with (
        openai.OpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="x", max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="no model 'nobody'"),
    ):
        client.models.retrieve("nobody")


def test_an_error_of_the_server_is_said(up: tuple[Proxy, Stub]) -> None:
    front, server = up
    server.script = lambda turn: turn.reply(b'{"error": "Unauthorized"}', status="401 Unauthorized")
    for path in ("/v1/models", "/v1/models/served"):
        reply = front.get(path)
        assert (reply.status, reply.json["error"]["message"]) == (401, "Unauthorized")


def test_a_server_that_is_gone_does_not_take_the_list_with_it(up: tuple[Proxy, Stub]) -> None:
    """Editors ask for the list when they open; an error there hides the model for good in some."""
    front, server = up
    server.close()
    listed = front.get("/v1/models")
    assert (listed.status, [entry["id"] for entry in listed.json["data"]]) == (200, ["served"])
    assert front.get("/v1/models/served").json["max_model_len"] == 8192
    assert front.get("/v1/models/nobody").status == 404


def test_a_fixed_endpoint_that_is_gone_has_no_list(cache_dir: Path, env: dict[str, str]) -> None:
    with stub() as server:
        gone = server.url
    with proxy(env | settings(cache_dir, gone)) as front:
        assert front.get("/v1/models").json["error"]["code"] == "upstream_unreachable"
