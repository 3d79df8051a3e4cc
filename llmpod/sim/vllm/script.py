"""What will be said, token by token, before anything is sent. Not when: that is the engine's part.

A whole answer and a stream are two readings of the same script, so they cannot differ.
"""

import codecs
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmpod.sim.vllm import tokens

Kind = Literal["reasoning", "content", "tool"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an answer; `tool` says which call the arguments belong to."""

    kind: Kind
    text: str
    tool: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One token: its bytes, and the text that became readable with it (none inside a divided character)."""

    kind: Kind
    piece: bytes
    text: str
    tool: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """One choice of an answer, with the reason why it ends."""

    steps: tuple[Step, ...]
    finish: str
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Where an answer ends if not by itself. `most` is tokens, at least 1."""

    most: int
    stops: tuple[str, ...] = ()
    keep_stop: bool = False
    ignore_end: bool = False


_END = Step("content", b"", "")  # the end-of-sequence token counts as one, and has no text


def script(segments: Sequence[Segment], limits: Limits, *, finish: str = "stop") -> Script:
    """The steps of an answer, cut where the limits say. `finish` is the reason of its natural end."""
    steps: list[Step] = []
    for segment in segments:
        steps += _steps(segment)
    if not limits.ignore_end:
        steps.append(_END)
    if stopped := _stopped(steps[: limits.most], limits):
        return stopped
    if len(steps) <= limits.most and not limits.ignore_end:
        return Script(tuple(steps), finish)
    kept = steps[: limits.most]
    kept[-1] = replace(kept[-1], text=kept[-1].text + _rest(kept))
    return Script(tuple(kept), "length")


def logprob(step: Step, position: int, tops: int) -> dict[str, Any]:
    """A plausible probability of a token at its position, with the `tops` likeliest ones, itself the first."""
    own = -(zlib.crc32(step.piece + position.to_bytes(4)) % 4000) / 1000 - 0.001
    likely = _entry(step.piece, own)
    others = (_entry(bytes((97 + (position + rank) % 26,)), own - rank / 2) for rank in range(1, tops))
    return {**likely, "top_logprobs": [dict(likely), *others][:tops]}


def _entry(piece: bytes, value: float) -> dict[str, Any]:
    return {"token": tokens.readable(piece), "logprob": value, "bytes": list(piece)}


def _steps(segment: Segment) -> Iterator[Step]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in tokens.pieces(segment.text):
        yield Step(segment.kind, piece, decoder.decode(piece), segment.tool)


def _rest(steps: Iterable[Step]) -> str:
    """What an answer shows for a character that it does not live to finish."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for step in steps:
        decoder.decode(step.piece)
    return decoder.decode(b"", final=True)


def _stopped(steps: Sequence[Step], limits: Limits) -> Script | None:
    """The script up to the first stop string in the content, if one occurs."""
    text = ""
    for index, step in enumerate(steps):
        if step.kind != "content" or not step.text:
            continue
        text += step.text
        if hits := [(text.find(stop), stop) for stop in limits.stops if stop in text]:
            at, stop = min(hits)
            end = at + (len(stop) if limits.keep_stop else 0)
            return Script(tuple(_shortened(steps[: index + 1], end)), "stop", stop)
    return None


def _shortened(steps: Iterable[Step], end: int) -> Iterator[Step]:
    """The same tokens, but only the first `end` characters of content; the tokens were generated all the same."""
    for step in steps:
        if step.kind == "content":
            yield replace(step, text=step.text[: max(0, end)])
            end -= len(step.text)
        else:
            yield step
