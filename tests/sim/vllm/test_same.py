"""A stream and a whole answer of the same request say the same, whatever the request."""

import json
from typing import Any

import hypothesis.strategies as st
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from tests.sim.vllm.conftest import Fake

GENTLE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
NUMBERS = st.sampled_from(
    [{"type": "integer", "minimum": 3, "maximum": 9}, {"type": "number"}, {"type": "integer"}]
)
LEAVES = NUMBERS | st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "maxLength": 4},
        {"type": "string", "minLength": 60},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["é", 1, None]},
        {"const": {"a": [1]}},
        {"type": ["integer", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    ]
)


def objects(of: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.dictionaries(NAMES, of, max_size=4)
    return fields.map(
        lambda found: {
            "type": "object",
            "properties": found,
            "required": sorted(found)[:2],
            "additionalProperties": False,
        }
    )


SCHEMAS = objects(
    st.recursive(
        LEAVES,
        lambda inner: objects(inner) | inner.map(lambda s: {"type": "array", "items": s}),
        max_leaves=6,
    )
)


def tool(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = st.lists(
    st.builds(tool, NAMES, SCHEMAS),
    min_size=1,
    max_size=3,
    unique_by=lambda tool: tool["function"]["name"],
)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 60),
        "n": st.integers(1, 3),
        "seed": st.integers(0, 9),
        "temperature": st.sampled_from([0, 0.7]),
        "stop": st.sampled_from(["the", [".", "e "], "🙂", ""]).filter(bool),
        "include_stop_str_in_output": st.booleans(),
        "logprobs": st.booleans(),
        "top_logprobs": st.integers(0, 3),
        "min_tokens": st.integers(0, 90),
        "ignore_eos": st.booleans(),
        "chat_template_kwargs": st.fixed_dictionaries({"enable_thinking": st.booleans()}),
    },
)
FORMS = st.one_of(
    st.just({}),
    TOOLS.map(lambda tools: {"tools": tools, "tool_choice": "required"}),
    TOOLS.map(
        lambda tools: {
            "tools": tools,
            "tool_choice": {"type": "function", "function": {"name": tools[0]["function"]["name"]}},
        }
    ),
    TOOLS.map(lambda tools: {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}),
    st.just({"response_format": {"type": "json_object"}}),
    SCHEMAS.map(
        lambda s: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": s}}}
    ),
)


def assembled(chunks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """What the choices of a stream say, put together as a client would."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            so_far = found.setdefault(
                choice["index"], {"content": "", "reasoning": "", "tools": {}, "logprobs": [], "finish": None}
            )
            delta = choice["delta"]
            so_far["content"] += delta.get("content", "")
            so_far["reasoning"] += delta.get("reasoning", "")
            assert delta.get("reasoning") == delta.get("reasoning_content")
            for call in delta.get("tool_calls", ()):
                kept = so_far["tools"].setdefault(call["index"], ["", ""])
                kept[0] += call["function"].get("name", "")
                kept[1] += call["function"]["arguments"]
            so_far["logprobs"] += (choice["logprobs"] or {"content": []})["content"]
            assert so_far["finish"] is None, "a choice goes on after its end"
            so_far["finish"] = choice["finish_reason"] and (choice["finish_reason"], choice["stop_reason"])
    return found


def told(whole: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """What the choices of a whole answer say, in the same form."""
    return {
        choice["index"]: {
            "content": choice["message"]["content"],
            "reasoning": choice["message"]["reasoning"] or "",
            "tools": {
                index: [call["function"]["name"], call["function"]["arguments"]]
                for index, call in enumerate(choice["message"].get("tool_calls", ()))
            },
            "logprobs": (choice["logprobs"] or {"content": []})["content"],
            "finish": (choice["finish_reason"], choice["stop_reason"]),
        }
        for choice in whole["choices"]
    }


@settings(parent=GENTLE, max_examples=40)
@given(text=st.text(max_size=60), sampling=SAMPLING, form=FORMS)
def test_both_forms_of_a_chat_say_the_same(
    fake: Fake, text: str, sampling: dict[str, Any], form: dict[str, Any]
) -> None:
    body = fake.chat(text, **sampling, **form)
    answer = fake.post(CHAT, body)
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    chunks = fake.chunks(CHAT, {**body, "stream_options": {"include_usage": True}})
    assert assembled(chunks) == told(whole)
    counts = chunks[-1]["usage"]
    assert counts == {name: whole["usage"][name] for name in counts}
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
    for choice in told(whole).values():
        assert_sensible(choice, body)


def assert_sensible(choice: dict[str, Any], body: dict[str, Any]) -> None:
    reason, _ = choice["finish"]
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in body.get("tools", ())}
    assert reason in ("stop", "length", "tool_calls")
    if reason == "tool_calls":
        assert len(choice["tools"]) == (
            min(2, len(schemas))
            if "parallel_tool_calls" not in body and body["tool_choice"] == "required"
            else 1
        )
        for name, arguments in choice["tools"].values():
            jsonschema.validate(json.loads(arguments), schemas[name])
    wanted = body.get("response_format", {})
    if reason == "stop" and wanted and "stop" not in body:
        value = json.loads(choice["content"])
        jsonschema.validate(value, wanted.get("json_schema", {"schema": {"type": "object"}})["schema"])
    stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop", [])
    if not body.get("include_stop_str_in_output"):
        assert not any(stop in choice["content"] for stop in stops)


@settings(parent=GENTLE, max_examples=30)
@given(
    prompt=st.text(max_size=30) | st.lists(st.text(max_size=20), min_size=1, max_size=3),
    sampling=SAMPLING,
    logprobs=st.none() | st.integers(0, 3),
    echo=st.booleans(),
)
def test_both_forms_of_a_completion_say_the_same(
    fake: Fake, prompt: Any, sampling: dict[str, Any], logprobs: int | None, *, echo: bool
) -> None:
    body = {**sampling, "prompt": prompt, "logprobs": logprobs, "echo": echo}
    answer = fake.post(COMPLETIONS, body)
    assert answer.status_code == 200, answer.text
    whole = answer.json()
    chunks = fake.chunks(COMPLETIONS, {**body, "stream_options": {"include_usage": True}})
    expected = {
        c["index"]: (c["text"], c["finish_reason"], c["stop_reason"], c["logprobs"]) for c in whole["choices"]
    }
    seen: dict[int, Any] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            text, _, _, probabilities = seen.get(choice["index"], ("", None, None, None))
            for name, values in (choice["logprobs"] or {}).items():
                probabilities = {**(probabilities or {}), name: (probabilities or {}).get(name, []) + values}
            seen[choice["index"]] = (
                text + choice["text"],
                choice["finish_reason"],
                choice["stop_reason"],
                probabilities,
            )
    assert seen == expected
    assert chunks[-1]["usage"].items() <= whole["usage"].items()


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@settings(parent=GENTLE, max_examples=20)
@given(text=st.text(max_size=40), limit=st.integers(1, 80))
def test_both_forms_of_the_other_chats_say_the_same(fake: Fake, path: str, text: str, limit: int) -> None:
    asked = {"input": text, "max_output_tokens": limit}
    if path == "/v1/messages":
        asked = {"messages": [{"role": "user", "content": text}], "max_tokens": limit}
    whole = fake.post(path, asked).json()
    events = [json.loads(event) for event in fake.events(path, asked) if event != "[DONE]"]
    if path == "/v1/messages":
        text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
        end = next(event for event in events if event["type"] == "message_delta")
        assert whole["content"] == [{"type": "text", "text": text}]
        assert (end["delta"]["stop_reason"], end["usage"]) == (whole["stop_reason"], whole["usage"])
        return
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    assert whole["output"][0]["content"][0]["text"] == last["output"][0]["content"][0]["text"] == text
    for name in ("status", "incomplete_details", "usage"):
        assert last[name] == whole[name]


def test_an_answer_cut_inside_a_character_shows_it(fake: Fake) -> None:
    """Like the real one, whose recorded answers end with U+FFFD now and then."""
    texts = [
        fake.post(CHAT, fake.chat("🙂 " * 8, max_tokens=limit, ignore_eos=True)).json()["choices"][0][
            "message"
        ]["content"]
        for limit in range(1, 30)
    ]
    cut = [text for text in texts if text.endswith("\ufffd")]
    assert cut
    assert all("\ufffd" not in text[:-1] for text in texts)
