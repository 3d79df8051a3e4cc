import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmpod.cache import AliasTable, request_key
from llmpod.cache.key import question_of
from llmpod.cache.policy import KeyPolicy
from llmpod.errors import BadRequest
from tests.cache.helpers import CHAT, TEXT

BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0}

text = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=12,
)
names = text | st.sampled_from(
    ["tools", "seed", "stop", "chat_template_kwargs", "guided_json", "messages", "n"]
)
bodies = st.dictionaries(names, values, max_size=6).filter(
    lambda body: not body.keys() & {"stream", "stream_options"}
)


def key(body: Any, path: str = CHAT, **options: Any) -> bytes:
    return request_key(path, json.dumps(body).encode(), **options).digest


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        items = draw(st.permutations(list(value.items())))
        return {name: shuffled(item, draw) for name, item in items}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


def tagged(value: Any) -> Any:
    """A value that compares as JSON text does: true is not 1, and 1 is not 1.0."""
    if isinstance(value, dict):
        return ("object", frozenset((name, tagged(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("list", tuple(map(tagged, value)))
    return (type(value).__name__, repr(value))


@given(bodies, st.data())
def test_order_of_members_and_white_space_do_not_count(body: dict[str, Any], data: st.DataObject) -> None:
    other = shuffled(body, data.draw)
    spread = json.dumps(other, indent=data.draw(st.integers(0, 3)), ensure_ascii=data.draw(st.booleans()))
    assert request_key(CHAT, spread.encode()).digest == key(body)


@given(bodies, bodies)
def test_different_values_have_different_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    def counted(body: dict[str, Any]) -> Any:
        return tagged({name: value for name, value in body.items() if name not in KeyPolicy().ignored})

    assert (key(one) == key(other)) is (counted(one) == counted(other))


def paths_into(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for name, item in inner for path in paths_into(item, (*here, name)))]


@given(bodies.filter(bool), values, st.data())
def test_a_change_anywhere_changes_the_key(body: dict[str, Any], value: Any, data: st.DataObject) -> None:
    *way, last = data.draw(st.sampled_from(paths_into(body)[1:]))
    changed = copy.deepcopy(body)
    place: Any = changed
    for step in way:
        place = place[step]
    assume(tagged(place[last]) != tagged(value))
    assume((way or [last])[0] not in KeyPolicy().ignored)
    place[last] = value
    assert key(changed) != key(body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1}', '{"a":1.0}'),
        ('{"a":1}', '{"a":true}'),
        ('{"a":0}', '{"a":false}'),
        ('{"a":null}', "{}"),
        ('{"a":"foo"}', '{"a":"Foo"}'),
        ('{"a":"foo"}', '{"a":"foo "}'),
        ('{"a":"\\u00e9"}', '{"a":"e\\u0301"}'),
        ('{"a":["b","c"]}', '{"a":["bc"]}'),
        ('{"a":{"b":1},"c":2}', '{"a":{"b":1,"c":2}}'),
        ('{"a":9007199254740993}', '{"a":9007199254740992}'),
        ('{"stream_options":{}}', '{"stream_options":{"continuous_usage_stats":true}}'),
        ('{"stream_options":0}', "{}"),
        ('{"stream":"true"}', '{"stream":true}'),
        ('{"stream":1}', '{"stream":true}'),
    ],
)
def test_what_looks_alike_is_told_apart(one: str, other: str) -> None:
    assert request_key(CHAT, one.encode()).digest != request_key(CHAT, other.encode()).digest


@pytest.mark.parametrize("name", sorted(KeyPolicy().ignored))
def test_fields_that_cannot_change_the_answer_do_not_count(name: str) -> None:
    assert key({**BASE, name: {"a": 1}}) == key(BASE)
    assert key({**BASE, "messages": [{**BASE["messages"][0], name: 1}]}) != key(BASE), "only at the top"


@pytest.mark.parametrize("stream", [None, False, True])
@pytest.mark.parametrize("options", [None, {}, {"include_usage": True}, {"include_usage": False}])
def test_one_key_for_both_forms(stream: object, options: dict[str, Any] | None) -> None:
    body = {**BASE, "stream": stream, "stream_options": options}
    found = request_key(CHAT, json.dumps(body).encode())
    assert found.digest == key(BASE)
    assert found.stream is bool(stream)
    assert found.include_usage is (options == {"include_usage": True})
    assert (found.model, found.cacheable, found.reason) == ("m", True, "")


def test_where_one_entry_cannot_serve_both_forms_stream_counts() -> None:
    body = {"model": "m", "input": "x"}
    assert key(body, "/v1/embeddings") != key({**body, "stream": True}, "/v1/embeddings")
    assert key(body, "/v1/embeddings") == key({**body, "stream": False}, "/v1/embeddings")


def test_context_counts_and_cannot_be_shifted_between_parts() -> None:
    keys = {
        key(BASE),
        key(BASE, TEXT),
        key(BASE, CHAT + "?a=1"),
        key(BASE, partition=b"p"),
        key(BASE, identity="p"),
        key(BASE, partition=b"ab", identity="c"),
        key(BASE, partition=b"a", identity="bc"),
    }
    assert len(keys) == 7


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{not json", "line 1, column 2"),
        (b"", "column 1"),
        (b"[1]", "must be an object"),
        (b'{"a":1,"a":2}', "'a' occurs twice"),
        (b'{"x":[{"b":1,"b":1}]}', "'b' occurs twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":1e400}', "too large"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"\\udc00":1}', "surrogate"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 6)"),
        (b'\xef\xbb\xbf{"a":1}', "column 1"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64"),
        (b'{"a":' + b"[" * 200_000, "deeper than 64"),
        (b'{"a":1} x', "Extra data"),
    ],
)
def test_a_body_that_servers_could_read_differently_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        request_key(CHAT, body)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (b"[" + b"1.5," * 2**19 + b"1]", "more than 524288 values"),
        (b"[" + b'",",' * 2**19 + b"1]", "more than 524288 values"),
        (b"[" + b"1" * 400 + b',"' + b"x" * 2**20 + b'"]', "too many digits"),
        (b"[" + b"1," * 2**19 + b'"', "more than 524288 values"),
    ],
    ids=["numbers", "strings", "digits", "cut"],
)
def test_what_would_keep_the_parser_busy_is_not_parsed(member: bytes, words: str) -> None:
    for path in (CHAT, "/v1/no/such"):
        with pytest.raises(BadRequest, match=words):
            request_key(path, b'{"a":' + member + b"}")


def test_what_stands_in_a_string_is_no_value_and_no_digit() -> None:
    text = "1," * 2**20 + '\\"' + "1" * 500 + "\u00e9"
    assert request_key(CHAT, json.dumps({"messages": [text, 1]}).encode()).cacheable


def test_nesting_up_to_the_limit_and_brackets_in_text_are_fine() -> None:
    request_key(CHAT, b'{"a":' + b"[" * 63 + b"]" * 63 + b"}")
    request_key(CHAT, json.dumps({"a": "[{" * 500, "b": [[1]] * 100}).encode())


@pytest.mark.parametrize(
    ("path", "fields", "reason"),
    [
        ("/v1/responses", {"store": True}, "store"),
        ("/v1/responses", {"background": True}, "background"),
        ("/v1/responses", {"previous_response_id": "r"}, "previous_response_id"),
        ("/v1/responses", {"conversation": "c"}, "conversation"),
        ("/v1/responses", {"tools": [{"type": "web_search"}]}, "tool"),
        (CHAT, {"stream": "yes"}, "boolean"),
        (CHAT, {"stream": 1}, "boolean"),
        (CHAT, {"web_search_options": {}}, "web"),
        (CHAT, {"kv_transfer_params": {}}, "kv_transfer_params"),
        ("/v1/audio/transcriptions", {}, "audio"),
        ("/v1/no/such", {}, "not a path"),
        ("/sleep", {}, "changes the server"),
        ("/v1/responses/resp_1/cancel", {}, "lives on the server"),
    ],
)
def test_what_is_not_stored_says_why(path: str, fields: dict[str, Any], reason: str) -> None:
    found = request_key(path, json.dumps({**BASE, **fields}).encode())
    assert not found.cacheable
    assert reason in found.reason
    assert found.model == "m"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/responses", {"store": False, "tools": [{"type": "function", "name": "f"}]}),
        (CHAT, {"store": True}),
        ("/v1/messages", {"stream": True}),
        ("/v1/embeddings", {}),
        ("/v2/rerank", {}),
        ("/tokenize", {}),
    ],
)
def test_what_repeats_is_stored(path: str, fields: dict[str, Any]) -> None:
    assert request_key(path, json.dumps({**BASE, **fields}).encode()).cacheable


def test_other_bodies_are_named_by_their_bytes_and_not_judged() -> None:
    one = request_key("/v1/audio/transcriptions", b"\xff\x00", content_type="multipart/form-data; boundary=a")
    other = request_key(
        "/v1/audio/transcriptions", b"\xff\x00", content_type="multipart/form-data; boundary=b"
    )
    assert one.digest != other.digest
    assert (one.cacheable, one.model) == (False, None)
    assert request_key("/v1/no/such", b"").model is None
    assert request_key("/v1/no/such", b'["any", {"model": "m"}]').model is None
    assert request_key("/v1/no/such", b'{"model": "m"}').model == "m"
    assert request_key(CHAT, b"{broken", content_type="text/plain").reason == "the request is not JSON"
    assert request_key(CHAT, b"{}", content_type="application/JSON; charset=utf-8").cacheable


def test_repeats_come_from_the_alias_table_and_leave_no_prompt_there() -> None:
    table = AliasTable(2)
    body = json.dumps(BASE).encode()
    first = table.lookup(CHAT, body)
    again = table.lookup(CHAT, body)
    assert first == request_key(CHAT, body)
    assert again == first._replace(question=b"")
    assert (
        question_of(CHAT, body)
        == first.question
        == b'{"messages":[{"content":"Hi","role":"user"}],"model":"m","temperature":0}'
    )
    assert table.lookup(CHAT, body) is again
    assert table.lookup(TEXT, body).digest != first.digest
    assert table.lookup(CHAT, body, partition=b"p").digest != first.digest
    assert len(table) == 2
    assert table.lookup(CHAT, body).question, "the oldest went"


def test_a_refused_body_is_refused_again() -> None:
    table = AliasTable()
    for _ in range(2):
        with pytest.raises(BadRequest):
            table.lookup(CHAT, b"{")
    assert len(table) == 0
