"""Whatever is sent to it, the fake answers or refuses; it never fails."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from tests.sim.vllm.conftest import Fake

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "function", "name", "json_schema", "schema"])
            | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
FIELDS = [
    "messages",
    "prompt",
    "input",
    "documents",
    "query",
    "text_1",
    "text_2",
    "tokens",
    "max_tokens",
    "n",
    "stop",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "response_format",
    "logprobs",
    "top_logprobs",
    "temperature",
    "top_p",
    "chat_template_kwargs",
    "dimensions",
    "encoding_format",
    "instructions",
    "system",
    "max_output_tokens",
    "min_tokens",
    "top_n",
]
PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/v1/responses",
    "/v1/messages",
    "/tokenize",
    "/detokenize",
]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    path=st.sampled_from(PATHS),
    base=st.booleans(),
    odd=st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=4),
)
def test_no_body_makes_it_fail(fake: Fake, path: str, odd: dict[str, Any], *, base: bool) -> None:
    sane = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "max_tokens": 3}
    rest = {"text_1": "x", "text_2": "x", "query": "x", "documents": ["x"], "tokens": [16777216 + 97]}
    answer = fake.post(path, {**(sane | rest if base else {}), **odd})
    assert answer.status_code in (200, 400, 404), answer.text
