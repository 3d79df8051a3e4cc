"""Which model a request is for, and what its model gets: pure, on requests as they come."""

import json
from dataclasses import replace
from typing import Any

import pytest

from llmpod.config import ProxySettings
from llmpod.config.demand import Demand
from llmpod.config.routes import Route, read_routes, routes_text
from llmpod.errors import NotRouted
from llmpod.proxy.ask import Ask
from llmpod.proxy.models import NoSuchModel
from llmpod.proxy.route import Destination, followed
from llmpod.proxy.ways_in import find_way

CHAT = "/v1/chat/completions"
FIRST = Route(
    model_key="chat",
    model="org/a",
    names=("org/a", "chat", "gpt-4o"),
    path="/chat",
    served="org/a",
    defaults={"max_tokens": 64},
    set={"temperature": 0},
    strip=("logit_bias",),
    system_prompt="Be brief.",
)
SECOND = Route(model_key="coder", model="org/b", names=("org/b", "coder"), path="/coder", served="org/b")


def known(*routes: Route, demand: tuple[str, ...] = ("chat", "coder")) -> tuple[Destination, ...]:
    """As the keeper knows them before anything ran."""
    settings = ProxySettings(routes=routes, demand={name: Demand() for name in demand})
    return followed({}, settings)


KNOWN = known(FIRST, SECOND)


def ask(body: Any, path: str = CHAT, method: str = "POST") -> Ask:
    raw = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return Ask(method, path, path.encode() + b"?q=1", [(b"content-type", b"application/json")], raw, "1")


@pytest.mark.parametrize(
    ("path", "model", "key"),
    [
        (CHAT, "org/b", "coder"),
        (CHAT, "coder", "coder"),
        (CHAT, "gpt-4o", "chat"),
        (CHAT, None, "chat"),
        (CHAT, "", "chat"),
        ("/coder" + CHAT, "gpt-4o", "coder"),
        ("/chat" + CHAT, "coder", "chat"),
    ],
)
def test_the_address_counts_first_then_the_name_then_the_default(path: str, model: Any, key: str) -> None:
    found, destination = find_way(ask({"model": model}, path), KNOWN)
    assert destination.model_key == key
    assert (found.path, found.target) == (CHAT, CHAT.encode() + b"?q=1")


def test_a_name_that_nobody_has_is_for_nobody() -> None:
    with pytest.raises(NoSuchModel) as caught:
        find_way(ask({"model": "unheard of"}), KNOWN)
    assert caught.value.as_openai()["error"]["code"] == "model_not_found"
    for name in (*FIRST.names, *SECOND.names):
        assert name in str(caught.value)
    with pytest.raises(NoSuchModel) as caught:
        find_way(ask({"model": "x" * 9999}), KNOWN)
    assert len(str(caught.value)) < 400


def test_a_name_that_nobody_has_is_for_the_server_that_may_know_it() -> None:
    """One with adapters: under its own address, too, the name is left to it."""
    adapted = replace(SECOND, open=True)
    for path in (CHAT, "/coder" + CHAT):
        found, destination = find_way(ask({"model": "sql-lora"}, path), known(FIRST, adapted))
        assert (destination.model_key, json.loads(found.body)) == ("coder", {"model": "sql-lora"})


def test_a_model_alone_that_runs_anyway_judges_names_itself() -> None:
    alone = replace(FIRST, strip=(), set={}, defaults={})
    found, _ = find_way(ask({"model": "unheard of"}), known(alone, demand=()))
    assert json.loads(found.body) == {"model": "unheard of"}
    with pytest.raises(NoSuchModel):
        find_way(ask({"model": "unheard of"}), known(alone))


def test_no_model_has_that_address() -> None:
    with pytest.raises(NotRouted) as caught:
        find_way(ask({}, "/nobody" + CHAT), KNOWN)
    assert "/chat, /coder" in str(caught.value)


def test_a_body_that_no_rule_touches_stays_to_the_byte() -> None:
    raw = b'{ "model" : "org/b",\t"messages":[], "x": "\\u00e9" }'
    found, _ = find_way(ask(raw), KNOWN)
    assert found.body is raw


def test_the_server_gets_the_name_that_it_knows() -> None:
    assert json.loads(find_way(ask({"model": "coder"}), KNOWN)[0].body) == {"model": "org/b"}
    assert json.loads(find_way(ask({"model": "x"}, "/coder" + CHAT), KNOWN)[0].body) == {"model": "org/b"}


def test_rules_strip_set_and_give() -> None:
    messages = [{"role": "user", "content": "hi"}]
    sent = {"model": "gpt-4o", "messages": messages, "temperature": 1, "logit_bias": {}, "max_tokens": 8}
    body = json.loads(find_way(ask(sent), KNOWN)[0].body)
    system = {"role": "system", "content": "Be brief."}
    assert body == {"model": "org/a", "messages": [system, *messages], "temperature": 0, "max_tokens": 8}
    mine = [{"role": "developer", "content": "Be long."}, *messages]
    body = json.loads(find_way(ask({"model": "chat", "messages": mine}), KNOWN)[0].body)
    assert body == {"model": "org/a", "messages": mine, "temperature": 0, "max_tokens": 64}
    body = json.loads(find_way(ask({"model": "chat", "input": "x"}, "/v1/embeddings"), KNOWN)[0].body)
    assert "messages" not in body


@pytest.mark.parametrize("raw", [b"", b"[1]", b"{", b'"text"'])
def test_what_is_no_object_is_left_to_who_refuses_it(raw: bytes) -> None:
    found, destination = find_way(ask(raw), KNOWN)
    assert (found.body, destination.model_key) == (raw, "chat")


def test_routes_survive_the_environment() -> None:
    assert read_routes("X", routes_text((FIRST, SECOND))) == (FIRST, SECOND)
