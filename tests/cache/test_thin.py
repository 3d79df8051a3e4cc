"""What is left out of a stream before it is judged never changes the judgement."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.cache import verdict
from llmpod.cache.sse import DONE
from llmpod.cache.thin import thinned

CHAT = "/v1/chat/completions"


def frame(content: Any, *, index: int = 0, finish: str | None = None, **more: Any) -> str:
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'c', 'model': 'm', 'choices': [choice], **more})}\n\n"


END = frame("", finish="stop") + f"data: {DONE}\n\n"


def judged(text: str) -> Any:
    return verdict(text.encode(), stream=True, path=CHAT)


def test_of_many_frames_that_differ_in_their_text_one_is_kept() -> None:
    text = "".join(frame(f'piece {n} with "quotes", \\ and \n lines, é and \x00') for n in range(100)) + END
    left = thinned(text)
    assert left.count("data: ") == 3
    assert text.startswith(left[: left.index("\n\n")])
    assert judged(text).complete


def test_two_choices_keep_one_frame_each() -> None:
    text = "".join(frame(str(n), index=n % 2) for n in range(100))
    assert thinned(text).count("data: ") == 2
    assert "choice 1" in judged(text + END).reason


@pytest.mark.parametrize(
    "odd",
    [
        'data: {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "cut',
        frame("x").replace('"x"', '"x" "y"'),
        frame("x").replace('"x"', '"\\x"'),
        frame("x").replace('"x"', '"\\u12"'),
        frame("x").replace('"x"', '"\t"'),
        frame("x").replace('"x"', 'x"'),
        frame("x", error={"message": "no"}),
        frame("x").replace('"c"', '"c", "error": {"message": "no"}'),
        frame("x", finish="abort"),
        "event: error\n" + frame("x"),
    ],
)
def test_no_frame_that_spoils_an_answer_is_left_out(odd: str) -> None:
    begun = "".join(frame(str(n)) for n in range(5))
    assert judged(begun + END).complete
    assert not judged(begun + odd + begun + END).complete


def test_the_last_usage_counts() -> None:
    usages = [frame(str(n), usage={"total_tokens": tokens}) for n, tokens in enumerate((1, 2, 1))]
    assert judged(frame("a") + frame("b") + "".join(usages) + END).usage == {"total_tokens": 1}


_TEXT = st.text(alphabet=st.sampled_from('ab"\\\n\x00é:{}data,finish_reason[DONE]'), max_size=12)


@given(
    st.lists(
        st.tuples(
            _TEXT,
            st.sampled_from([0, 0, 0, 1]),
            st.sampled_from([None] * 6 + ["stop", "abort"]),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from(['"', "\\", "}", "\n\n", "x", ""])), max_size=2),
)
def test_the_judgement_is_that_of_the_whole(
    pieces: list[tuple[str, int, str | None, bool]], damage: list[tuple[int, str]]
) -> None:
    """Whatever a server sends, and whatever became of it on the way."""
    text = "".join(
        frame(content, index=index, finish=finish, **({"usage": {"n": len(content)}} if usage else {}))
        for content, index, finish, usage in pieces
    )
    for place, put in damage:
        text = text[:place] + put + text[place + 1 :]
    text += END
    for spoiled in (
        "",
        frame("\ud800").replace("data", "Data"),
    ):  # the second one thins nothing: no "data: " line
        body = spoiled + text
        assert judged(body).complete is _by_the_book(body)


def _by_the_book(text: str) -> bool:
    """The same question, asked frame by frame."""
    ends: dict[int, str | None] = {}
    blocks = text.split("\n\n")[:-1]
    lines = [line for block in blocks for line in [_data(block)] if line is not None]
    if not lines or lines[-1].strip() != DONE:
        return False
    for line in lines[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            return False
        if not isinstance(value, dict) or not isinstance(value.get("choices"), list):
            return False
        for choice in value["choices"]:
            if not isinstance(choice, dict) or not isinstance(choice.get("index", 0), int):
                return False
            reason, before = choice.get("finish_reason"), ends.get(choice.get("index", 0))
            if before is not None and reason not in (None, before):
                return False
            ends[choice.get("index", 0)] = before or reason
    return bool(ends) and all(reason == "stop" for reason in ends.values())


def _data(block: str) -> str | None:
    data = [line[5:].removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
    return "\n".join(data) if data else None
