"""The most used system prompts are shown to a server that has become ready, within bounds, and nobody counts it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmpod.lifecycle.store import Store
from llmpod.model import Phase, Usage
from llmpod.proxy.ask import Ask
from llmpod.proxy.prefixes import KNOWN, WAITING, Prefixes
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, stub
from tests.proxy.test_keeper import READY, running, write
from tests.support.net import free_port
from tests.support.wait import eventually

TOOLS = [{"type": "function", "function": {"name": "f"}}]


def conversation(system: str, text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return {"model": "m", "messages": messages, **more}


def ask(body: Any, path: str = CHAT) -> Ask:
    return Ask("POST", path, path.encode(), [], json.dumps(body).encode(), "")


def noted(*bodies: Any) -> Prefixes:
    prefixes = Prefixes()
    for body in bodies:
        prefixes.note(ask(body))
        prefixes.read()
    return prefixes


def systems(prefixes: Prefixes, most: int = 99, *, tokens: int = 10**6) -> list[str]:
    return [request["messages"][0]["content"] for request in prefixes.top(most, tokens=tokens)]


def test_the_most_used_comes_first_whatever_was_asked() -> None:
    prefixes = noted(*(conversation("rare", "x"), *(conversation("often", str(n)) for n in range(3))))
    assert systems(prefixes) == ["often", "rare"]
    assert systems(prefixes, 1) == ["often"]


def test_a_beginning_is_its_system_messages_and_tools_and_no_more() -> None:
    two = [{"role": "developer", "content": "a"}, {"role": "system", "content": "b"}]
    body = {
        "model": "m",
        "temperature": 0.3,
        "stream": True,
        "messages": [*two, {"role": "user", "content": "secret"}],
    }
    (request,) = noted({**body, "tools": TOOLS}).top(9, tokens=999)
    user = {"role": "user", "content": "."}
    assert request == {"model": "m", "messages": [*two, user], "tools": TOOLS, "max_tokens": 1}
    assert len(noted(body, {**body, "tools": TOOLS}).top(9, tokens=999)) == 2


def test_tokens_are_bounded_and_a_smaller_one_still_fits() -> None:
    prefixes = noted(conversation("x" * 4000, "1"), conversation("x" * 4000, "2"), conversation("short", "3"))
    assert systems(prefixes, tokens=500) == ["short"]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"messages": 3},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": [{"role": []}]},
        chat_body(),
    ],
)
def test_what_has_no_system_prompt_is_not_kept(body: Any) -> None:
    assert systems(noted(body)) == []


def test_memory_is_bounded_and_the_used_ones_stay() -> None:
    prefixes = noted(*(conversation("kept", str(n)) for n in range(5)))
    for number in range(3 * KNOWN):
        prefixes.note(ask(conversation(f"passing {number}", "x")))
        prefixes.read()
    assert len(systems(prefixes, 10**6)) <= KNOWN
    assert "kept" in systems(prefixes, 10**6)
    for number in range(2 * WAITING):
        prefixes.note(ask(conversation(f"burst {number}", "x")))
    prefixes.read()
    assert sum(text.startswith("burst") for text in systems(prefixes, 10**6)) <= WAITING
    prefixes.note(ask(conversation("x" * 10**6, "x")))
    prefixes.note(ask(conversation("elsewhere", "x"), "/v1/embeddings"))
    assert not prefixes.noted


def used(state_file: Path) -> Usage:
    return Store(state_file).usage().get("default", Usage())


def shown(server: Stub) -> list[str]:
    return [turn.json["messages"][0]["content"] for turn in server.turns]


def test_a_server_that_became_ready_is_shown_them_and_that_is_no_use(
    state_dir: Path, cache_dir: Path, env: dict[str, str], tmp_path: Path
) -> None:
    state_file, questions = state_dir / "pod_state.json", tmp_path / "questions.jsonl"
    questions.write_text(json.dumps(chat_body("given")))
    with stub() as first, stub() as second:
        write(state_file, replace(READY, base_url=first.url))
        more = {"PREWARM_PROMPTS": "2", "PREWARM_CACHE": str(questions), "PORT": str(free_port())}
        with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file), **more)) as front:
            eventually(lambda: len(first.turns) == 1)  # the given question; no beginning is known yet
            for system, times in (("b", 2), ("a", 3), ("c", 1)):
                for number in range(times):
                    assert front.ask(conversation(system, f"{system}{number}")).status == 200
            eventually(lambda: used(state_file).requests == 6, within=10)
            write(state_file, replace(READY, phase=Phase.STOPPED))
            eventually(lambda: not running(front))
            write(state_file, replace(READY, base_url=second.url))
            eventually(lambda: _logged(front, "prewarmed_prompts"), within=10)
            assert shown(second) == ["a", "b"]
            assert {turn.json["max_tokens"] for turn in second.turns} == {1}
            assert not any("x-llmpod-warming" in turn.headers for turn in second.turns)
            front.ask(conversation("a", "somebody"))
            eventually(lambda: used(state_file).requests == 7, within=10)


def test_what_it_costs_is_bounded(state_dir: Path, cache_dir: Path, env: dict[str, str]) -> None:
    state_file = state_dir / "pod_state.json"
    with stub() as server:
        dear = replace(READY, base_url=server.url, usd_per_hour=3600.0)
        write(state_file, dear)
        more = {"PREWARM_PROMPTS": "9", "PREWARM_USD": "0", "PORT": str(free_port())}
        with proxy(env | settings(cache_dir, LLMPOD_STATE=str(state_file), **more)) as front:
            for system in ("a", "b"):
                front.ask(conversation(system, "x"))
            eventually(lambda: used(state_file).requests == 2, within=10)
            write(state_file, replace(dear, phase=Phase.STOPPED))
            eventually(lambda: not running(front))
            write(state_file, dear)
            (line,) = eventually(lambda: _logged(front, "prewarmed_prompts"), within=10)
            assert (line["known"], line["shown"]) == (2, 0)
            assert len(server.turns) == 2


def _logged(front: Proxy, event: str) -> list[dict[str, Any]]:
    return [line for line in front.logs() if line["event"] == event]
