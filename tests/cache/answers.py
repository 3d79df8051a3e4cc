"""Generated answers of chat and text completions, as different servers would send them."""

from typing import Any

from hypothesis import strategies as st

text = st.text(st.characters(codec="utf-8"), max_size=20)
some_text = text.filter(bool)
names = st.text("abcdefgh_", min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-9, 9) | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=2)
)

calls = st.fixed_dictionaries(
    {
        "id": some_text,
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": names, "arguments": text}),
    },
    optional={"extra": values},
)
tokens = st.fixed_dictionaries(
    {"token": text, "logprob": st.floats(-9, 0), "bytes": st.lists(st.integers(0, 255), max_size=3)},
    optional={"id": st.integers(0, 9), "top_logprobs": st.just([])},
)
logprobs = st.none() | st.fixed_dictionaries(
    {"content": st.lists(tokens, min_size=1, max_size=3)}, optional={"refusal": st.none()}
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | text},
    optional={
        "tool_calls": st.lists(calls, min_size=1, max_size=3),
        "reasoning": st.none() | some_text,
        "reasoning_content": st.none() | some_text,
        "refusal": st.none() | some_text,
        "annotations": st.none()
        | st.lists(st.dictionaries(names, scalars, min_size=1, max_size=2), max_size=2),
        "function_call": st.none() | st.fixed_dictionaries({"name": names, "arguments": text}),
        "audio": st.none() | st.fixed_dictionaries({"id": some_text, "data": some_text}),
        "x_unknown": values,
    },
).filter(
    lambda message: (
        any(value for name, value in message.items() if name != "role") or message["content"] == ""
    )
)

usage = st.fixed_dictionaries(
    {
        "prompt_tokens": st.integers(0, 9),
        "completion_tokens": st.integers(0, 9),
        "total_tokens": st.integers(0, 18),
    },
    optional={"prompt_tokens_details": st.none() | st.dictionaries(names, st.integers(0, 9), max_size=1)},
)
ends = st.sampled_from(["stop", "length", "tool_calls"])
beside = {
    "stop_reason": st.none() | st.integers(0, 9) | text,
    "token_ids": st.none() | st.lists(st.integers(0, 9)),
}


def numbered(choices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"index": index, **choice} for index, choice in enumerate(choices)]


def answers(kind: str, choice: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "id": some_text,
            "object": st.just(kind),
            "created": st.integers(1, 2**31),
            "model": some_text,
            "choices": st.lists(choice, min_size=1, max_size=3).map(numbered),
            "usage": usage,
        },
        optional={
            "system_fingerprint": st.none() | text,
            "service_tier": st.none(),
            "prompt_logprobs": st.none(),
            "timings": st.dictionaries(names, st.integers(0, 9), max_size=2),
            "x_unknown": values,
        },
    )


chat_answers = answers(
    "chat.completion",
    st.fixed_dictionaries(
        {"message": messages, "finish_reason": ends}, optional={"logprobs": logprobs, **beside}
    ),
)
text_logprobs = st.none() | st.fixed_dictionaries(
    {"tokens": st.lists(text, max_size=3), "text_offset": st.lists(st.integers(0, 9), max_size=3)}
)
text_answers = answers(
    "text_completion",
    st.fixed_dictionaries(
        {"text": text, "finish_reason": ends}, optional={"logprobs": text_logprobs, **beside}
    ),
)
