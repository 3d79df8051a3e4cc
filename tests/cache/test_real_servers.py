"""Against what real servers sent: vLLM, llama.cpp and transformers serve, recorded as raw HTTP exchanges.

A few of them are in tests/cache/data; all of them are used where the shared folder lies beside the repository.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from llmpod.cache import FrameScanner, verdict
from llmpod.cache.assemble import assemble
from llmpod.cache.sse import iter_frames, parse_events
from llmpod.cache.unroll import strip_usage, unroll
from tests.cache.helpers import CHAT, DATA, REAL, TEXT, exchange, without_nulls

PATHS = {"chat": CHAT, "completions": TEXT, "responses": "/v1/responses", "messages": "/v1/messages"}
EXCHANGES = sorted(
    path for root in (DATA, REAL) for path in root.rglob("*.http") if path.stem.partition("_")[0] in PATHS
)


def path_of(file: Path) -> str:
    return PATHS[file.stem.partition("_")[0]]


def label(file: Path) -> str:
    return "-".join(file.parts[-3:]).replace("captures-", "")


@pytest.mark.parametrize("file", EXCHANGES, ids=label)
def test_recorded_exchange(file: Path) -> None:
    status, stream, body = exchange(file)
    path = path_of(file)
    found = verdict(body, stream=stream, path=path)
    if status != 200:
        assert not found.complete
        return
    no_done = "transformers" in str(file) and stream and path in {CHAT, TEXT}
    assert found.complete is not no_done, found.reason
    if stream:
        check_scanner(body, path, done=not no_done)
    check_conversion(body, path, stream=stream)


def check_scanner(body: bytes, path: str, *, done: bool) -> None:
    scanner = FrameScanner(path)
    for start in range(0, len(body), 7):
        scanner.feed(body[start : start + 7])
    assert scanner.done is done
    assert scanner.boundary == len(body)
    assert scanner.frames == len(list(iter_frames(body))) == len(parse_events(body))


def check_conversion(body: bytes, path: str, *, stream: bool) -> None:
    """The document is what the same server sends to a client that does not stream: same fields, same kinds."""
    document = assemble(body, path=path) if stream else body
    again = assemble(unroll(document, path=path, include_usage=True), path=path)
    assert without_nulls(json.loads(again)) == without_nulls(json.loads(document))


def outline(value: Any) -> Any:
    """A document without what differs from answer to answer: only which fields there are, and of what kind."""
    if isinstance(value, dict):
        return {name: outline(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [outline(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) else type(value).__name__


SERVERS = sorted({path.parent for path in EXCHANGES if path.stem == "chat_stream_usage"})


@pytest.mark.parametrize("folder", SERVERS, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_assembled_stream_has_the_fields_of_the_same_servers_document(folder: Path) -> None:
    _, _, streamed = exchange(folder / "chat_stream_usage.http")
    _, _, document = exchange(folder / "chat.http")
    got, wanted = json.loads(assemble(streamed, path=CHAT)), json.loads(document)
    assert got["object"] == wanted["object"]
    assert wanted["choices"][0]["message"]["content"].startswith(got["choices"][0]["message"]["content"][:2])
    if got.get("system_fingerprint") == "":  # transformers serve has it in chunks only, and empty
        del got["system_fingerprint"]
    assert outline(got) == outline(wanted)


def test_the_text_of_a_real_stream_is_whole() -> None:
    _, _, body = exchange(DATA / "vllm" / "chat_stream_usage.http")
    got = json.loads(assemble(body, path=CHAT))
    assert got["choices"][0]["message"] == {"role": "assistant", "content": "\ufffd\ufffd_\ufffdrn"}
    assert got["usage"] == {"prompt_tokens": 6, "total_tokens": 12, "completion_tokens": 6}
    assert got["system_fingerprint"] == "vllm-0.32.0-261a80b7"
    asked = strip_usage(body)
    assert len(list(iter_frames(asked))) == len(list(iter_frames(body))) - 1
    assert body.startswith(asked[:500])


TAILS = [
    ("stream_sigterm_tail.txt", True, "'abort'"),
    ("stream_engine_killed_tail.txt", True, "error"),
    ("nonstream_sigterm_body.json", False, "'abort'"),
]


@pytest.mark.parametrize(("name", "stream", "words"), TAILS)
def test_a_dying_vllm_never_gives_a_complete_answer(name: str, stream: object, words: str) -> None:
    body = (DATA / "vllm" / name).read_bytes()
    if stream:
        body = body[body.index(b"data: ") :]  # the recording starts within a frame
    found = verdict(body, stream=bool(stream), path=CHAT)
    assert not found.complete
    assert words in found.reason


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/real is not beside this repository")
def test_all_recordings_are_used() -> None:
    assert len(EXCHANGES) > 50
