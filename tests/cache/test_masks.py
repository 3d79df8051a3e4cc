"""What changes with each call and not the question does not count; all else does. And what may be stored at all."""

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmpod.cache import MASKS, KeyPolicy, request_key
from llmpod.config.caching import ALL_MASKS
from tests.cache.helpers import CHAT, TEXT

RESPONSES = "/v1/responses"
NONE = KeyPolicy(masks=frozenset())
CODEX: dict[str, Any] = {
    "model": "m",
    "store": False,
    "prompt_cache_key": "019aa",
    "client_metadata": {"run": "1"},
    "input": [
        {"type": "message", "id": "msg_1", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "shell", "arguments": "{}"},
        {"type": "function_call_output", "id": "fo_1", "call_id": "call_1", "output": "ok"},
        {"role": "user", "id": "x", "content": "go on"},
    ],
}
stamps = st.builds(
    "2026-11-{:02}T{:02}:{:02}:{:02}Z".format,
    st.integers(1, 28),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
)
words = st.text(st.characters(codec="utf-8"), max_size=20)


def key(body: Any, path: str = CHAT, **options: Any) -> bytes:
    return request_key(path, json.dumps(body).encode(), **options).digest


def kilo(stamp: str, *, before: str = "hi\n", after: str = "", parts: bool = False) -> dict[str, Any]:
    text = f"{before}Message time: {stamp}{after}"
    content: Any = [{"type": "text", "text": "hi"}, {"type": "text", "text": text}] if parts else text
    return {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}],
    }


def changed(body: Any, *way: Any, value: Any) -> Any:
    other = copy.deepcopy(body)
    place = other
    for step in way[:-1]:
        place = place[step]
    place[way[-1]] = value
    return other


def test_the_names_are_those_of_the_configuration() -> None:
    assert set(MASKS) == set(ALL_MASKS)


@given(st.data())
def test_the_ids_of_items_do_not_count(data: st.DataObject) -> None:
    other = copy.deepcopy(CODEX)
    for item in other["input"]:
        item["id"] = data.draw(words)
        if data.draw(st.booleans()):
            del item["id"]
    other["prompt_cache_key"], other["client_metadata"] = data.draw(words), {"run": data.draw(words)}
    assert key(other, RESPONSES) == key(CODEX, RESPONSES)
    if other["input"] != CODEX["input"]:
        assert key(other, RESPONSES, policy=NONE) != key(CODEX, RESPONSES, policy=NONE)


@pytest.mark.parametrize(
    "way",
    [
        ("input", 0, "role"),
        ("input", 0, "content", 0, "text"),
        ("input", 1, "call_id"),
        ("input", 1, "arguments"),
        ("input", 2, "call_id"),
        ("input", 2, "output"),
        ("input", 0, "type"),
        ("model",),
    ],
)
def test_everything_else_of_an_item_counts(way: tuple[Any, ...]) -> None:
    assert key(changed(CODEX, *way, value="other"), RESPONSES) != key(CODEX, RESPONSES)


@pytest.mark.parametrize(
    "kind", ["mcp_approval_request", "local_shell_call", "item_reference", 7, ["message"]]
)
def test_an_id_that_others_refer_to_counts(kind: Any) -> None:
    bodies = [{"model": "m", "input": [{"type": kind, "id": name}]} for name in "ab"]
    assert key(bodies[0], RESPONSES) != key(bodies[1], RESPONSES)


def test_what_lives_on_the_server_is_not_stored() -> None:
    found = request_key(RESPONSES, b'{"input": [{"type": "item_reference", "id": "a"}]}')
    assert (found.cacheable, "item_reference" in found.reason) == (False, True)


def test_ids_in_other_paths_count() -> None:
    bodies = [
        {"model": "m", "input": [{"type": "message", "id": name}], "messages": [{"id": name}]}
        for name in "ab"
    ]
    assert key(bodies[0]) != key(bodies[1])


@given(
    one=stamps,
    other=stamps,
    parts=st.booleans(),
    after=words.filter(lambda text: not text or not text[0].isalnum()),
)
def test_the_time_of_day_in_kilos_stamp_does_not_count(
    one: str, other: str, *, parts: bool, after: str
) -> None:
    assume("_" not in after[:1] and not after[:1].isdigit())
    same_day = one[:10] == other[:10]
    keys = [key(kilo(stamp, after=after, parts=parts)) for stamp in (one, other)]
    assert (keys[0] == keys[1]) is same_day
    bare = [key(kilo(stamp, after=after, parts=parts), policy=NONE) for stamp in (one, other)]
    assert (bare[0] == bare[1]) is (one == other)


@given(words, words)
def test_what_stands_beside_the_stamp_counts(one: str, other: str) -> None:
    stamp = "2026-11-21T08:05:15Z"
    assert (key(kilo(stamp, before=one + "\n")) == key(kilo(stamp, before=other + "\n"))) is (one == other)


@pytest.mark.parametrize(
    "text",
    [
        "Message time: 2026-11-21T08:05:{}Zulu",
        "xMessage time: 2026-11-21T08:05:{}Z",
        "message time: 2026-11-21T08:05:{}Z",
        "Message time: 2026-11-21 08:05:{}",
        "Time: 2026-11-21T08:05:{}Z",
    ],
)
def test_what_only_looks_like_the_stamp_counts(text: str) -> None:
    bodies = [{"messages": [{"role": "user", "content": text.format(second)}]} for second in (15, 16)]
    assert key(bodies[0]) != key(bodies[1])


def session(*seconds: int, block: str) -> dict[str, Any]:
    """A conversation as Kilo sends it: every question with its own stamp, in a part of its own."""
    messages: list[dict[str, Any]] = []
    for second in seconds:
        details = block.format(stamp=f"2026-11-21T08:05:{second}Z")
        messages.append(
            {"role": "user", "content": [{"type": "text", "text": "go"}, {"type": "text", "text": details}]}
        )
        messages.append({"role": "assistant", "content": "yes"})
    return {"model": "m", "messages": messages[:-1]}


def test_every_question_of_a_kilo_session_has_its_stamp() -> None:
    block = "\n\n<environment_details>\nMessage time: {stamp}\nWorking directory: /w\n</environment_details>"
    assert key(session(10, 20, 30, block=block)) == key(session(11, 21, 31, block=block))
    assert key(session(10, 20, 30, block=block)) != key(session(10, 20, 30, block=block.replace("/w", "/x")))
    bare = "Message time: {stamp}"
    assert key(session(10, 20, 30, block=bare)) == key(session(10, 20, 31, block=bare))
    assert key(session(10, 20, 30, block=bare)) != key(session(10, 21, 30, block=bare))


def test_a_stamp_alone_is_looked_at_in_the_last_user_message_only() -> None:
    one = kilo("2026-11-21T08:05:15Z")
    later = [
        {"role": "assistant", "content": "yes"},
        {"role": "tool", "content": "done", "tool_call_id": "1"},
    ]
    for more, same in ((later, True), ([*later, {"role": "user", "content": "thanks"}], False)):
        bodies = [{"messages": [*kilo(f"2026-11-21T08:05:{s}Z")["messages"], *more]} for s in (15, 16)]
        assert (key(bodies[0]) == key(bodies[1])) is same
    system = changed(one, "messages", 0, "content", value="Message time: 2026-11-21T08:05:15Z")
    assert key(system) != key(
        changed(system, "messages", 0, "content", value="Message time: 2026-11-21T08:05:16Z")
    )
    assert key(one, TEXT) != key(kilo("2026-11-21T08:05:16Z"), TEXT), "a rule of the chat"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "x",
        [None],
        [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [1]}],
    ],
)
def test_odd_messages_are_left_alone(messages: Any) -> None:
    assert request_key(CHAT, json.dumps({"messages": messages}).encode()).cacheable
    assert key({"messages": messages}) == key({"messages": messages}, policy=NONE)


@pytest.mark.parametrize(
    ("storing", "path", "fields", "stored"),
    [
        ({}, CHAT, {}, True),
        ({"*": "always"}, CHAT, {}, True),
        ({"*": "off"}, CHAT, {"temperature": 0}, False),
        ({"*": "off", CHAT: "always"}, CHAT, {}, True),
        ({CHAT: "off"}, CHAT + "?x=1", {}, False),
        ({CHAT: "off"}, TEXT, {}, True),
        ({"*": "deterministic"}, CHAT, {}, False),
        ({"*": "deterministic"}, CHAT, {"temperature": 0.7}, False),
        ({"*": "deterministic"}, CHAT, {"temperature": None, "seed": None}, False),
        ({"*": "deterministic"}, CHAT, {"temperature": False}, False),
        ({"*": "deterministic"}, CHAT, {"seed": True}, False),
        ({"*": "deterministic"}, CHAT, {"temperature": 0}, True),
        ({"*": "deterministic"}, CHAT, {"temperature": 0.0}, True),
        ({"*": "deterministic"}, CHAT, {"temperature": 1, "seed": 0}, True),
        ({"*": "deterministic"}, "/v1/embeddings", {}, True),
        ({"*": "deterministic"}, "/v1/messages", {}, False),
        ({"*": "deterministic"}, RESPONSES, {"temperature": 0}, True),
    ],
)
def test_what_the_policy_lets_in(
    storing: dict[str, str], path: str, fields: dict[str, Any], *, stored: bool
) -> None:
    body = json.dumps({"model": "m", **fields}).encode()
    found = request_key(path, body, policy=KeyPolicy(storing=storing))
    assert found.cacheable is stored
    assert ("cache_policy" in found.reason) is not stored
    assert found.digest == request_key(path, body).digest, "a policy changes no key"
