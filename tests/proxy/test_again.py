"""An SDK that asks again joins its first attempt, where nothing is stored too, and nobody else does."""

from typing import Any

import pytest

from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, chat
from tests.proxy.test_join import ask, held

AGAIN = {"x-stainless-retry-count": "1"}
AUDIO = "/v1/audio/speech"  # never stored
NO_STORE = {"Cache-Control": "no-store"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, AGAIN),
        ({"Idempotency-Key": "k1"}, {"Idempotency-Key": "k1"}),
        ({"Idempotency-Key": "k1", "x-stainless-retry-count": "0"}, {"Idempotency-Key": "k1", **AGAIN}),
    ],
)
@pytest.mark.parametrize("path", [CHAT, AUDIO])
def test_asking_again_joins_the_first_attempt(
    front: Proxy, server: Stub, path: str, first: dict[str, str], second: dict[str, str]
) -> None:
    """Where nothing is stored: the client said so, or the path is none whose answers are."""
    go = held(server, "once")
    with front.client() as one, front.client() as two:
        ask(one, chat_body(f"again {first}"), first | NO_STORE, path=path)
        server.wait_turns(1)
        ask(two, chat_body(f"again {first}"), second | NO_STORE, path=path)
        front.metrics()
        go.set()
        replies = [client.reply() for client in (one, two)]
    assert [reply.body for reply in replies] == [chat("once")] * 2
    assert [reply.cache for reply in replies] == ["BYPASS", "JOIN"]
    assert len(server.turns) == 1


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [
        ({}, {}, {}),
        ({}, {"x-stainless-retry-count": "0"}, {}),
        ({"Authorization": "Bearer a"}, {"Authorization": "Bearer b", **AGAIN}, {}),
        ({"x-api-key": "a"}, AGAIN, {}),
        ({"Idempotency-Key": "k1"}, {"Idempotency-Key": "k2", **AGAIN}, {}),
        ({}, AGAIN, {"temperature": 0.5}),
    ],
    ids=["no retry", "retry 0", "another caller", "caller without a key", "another idea", "another body"],
)
def test_nobody_else_joins_it(
    front: Proxy, server: Stub, first: dict[str, str], second: dict[str, str], other: dict[str, Any]
) -> None:
    go = held(server)
    with front.client() as one, front.client() as two:
        ask(one, chat_body("mine alone"), first | NO_STORE)
        server.wait_turns(1)
        ask(two, chat_body("mine alone", **other), second | NO_STORE)
        server.wait_turns(2)
        go.set()
        assert [client.reply().cache for client in (one, two)] == ["BYPASS", "BYPASS"]


def test_what_is_over_is_not_joined(front: Proxy, server: Stub) -> None:
    for _ in range(2):
        assert front.ask(chat_body("over"), headers=AGAIN | NO_STORE).cache == "BYPASS"
    assert len(server.turns) == 2
