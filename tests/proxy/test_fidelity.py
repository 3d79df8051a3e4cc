"""What a model server and its clients say to each other passes through as it is: each path, each method, each byte."""

import json
import threading

import pytest

from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, Turn, chat, one_by_one

# vLLM 0.32's OpenAI-compatible server: POST unless said otherwise (docs/serving/openai_compatible_server)
DOCUMENTS = [
    *(
        "/v1/embeddings",
        "/v1/pooling",
        "/v1/score",
        "/v1/rerank",
        "/v1/classify",
        "/v1/messages/count_tokens",
    ),
    *("/tokenize", "/detokenize", "/pooling", "/classify", "/score", "/rerank", "/v2/rerank"),
]
PASSED = ["/v1/audio/speech", "/v1/responses/resp_1/cancel", "/v1/load_lora_adapter", "/v2/embed"]
ODD = b'{ "model":"m",\t"input" : "\\u00e9 \xc3\xa9", "new_field": {"deep": [1.0, 1e5, null]} }'


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *PASSED, "/v1/completions?beta=1", "/v1/responses", "/v1/messages"]
)
def test_a_body_reaches_every_path_untouched(front: Proxy, server: Stub, path: str) -> None:
    answer = b'{ "object" : "x",  "unknown": [1.50, {"a": "\\u00e9"}] }'
    server.script = lambda turn: turn.reply(answer)
    replies = [front.ask(ODD, path=path) for _ in range(2)]
    assert {(reply.status, reply.body) for reply in replies} == {(200, answer)}
    turn = server.turns[0]
    assert (turn.method, turn.target, turn.body) == ("POST", path, ODD)
    assert replies[1].cache == ("HIT" if path in DOCUMENTS else replies[0].cache)


@pytest.mark.parametrize("path", ["/v1/responses/resp_1", "/v1/responses/resp_1/input_items?limit=2"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_lives_on_the_server(front: Proxy, server: Stub, path: str, method: str) -> None:
    assert front.get(path, method=method).json == {"method": method, "target": path, "body": ""}


@pytest.mark.parametrize("path", ["/v1/responses/resp_1", "/v1/anything"])
def test_head_is_answered_where_get_is(front: Proxy, server: Stub, path: str) -> None:
    got, head = front.get(path), front.get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(got.body))
    assert front.get("/livez").status == 200


@pytest.mark.parametrize("path", ["/invocations", "/pause", "/tokenizer", "/v2/other", "/v1"])
def test_no_other_path_leads_to_the_server(front: Proxy, server: Stub, path: str) -> None:
    """Among them those that need no key there or change it (CVE list of reliability-security.md, 3.1)."""
    reply = front.ask(ODD, path=path)
    assert (reply.status, server.turns) == (404, [])


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations"])
def test_uploads_pass_and_a_streamed_transcript_is_live(front: Proxy, server: Stub, path: str) -> None:
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n--b--\r\n'
    )
    heard = threading.Event()

    def script(turn: Turn) -> None:
        turn.stream()
        turn.chunk(b'data: {"delta": "a"}\n\n')
        assert heard.wait(5)
        turn.chunk(b"data: [DONE]\n\n")
        turn.last()

    server.script = script
    with front.client() as client:
        client.send("POST", path, body, {"Content-Type": "multipart/form-data; boundary=b"})
        response = client.open_reply()
        assert response.read1(65536) == b'data: {"delta": "a"}\n\n'
        heard.set()
        assert response.read() == b"data: [DONE]\n\n"
    assert server.turns[0].body == body


ODD_FRAMES = [
    b'data: {"choices": [],\ndata:  "x": 1}\n\n',
    b"data\n\n",
    b":\n\n",
    b": multi\n: line\n\n",
    b"\r\n",
    b'event: a\r\ndata: {"b": "\\u2028"}\r\n\r\n',
    b'id: 1\r\rdata: {"c": "\xe2\x80\xa8"}\r\r',
    b"unknown: field\n\n",
    b"\xef\xbb\xbfdata: {}\n\n",
    b'data: {"choices": [{"index": 0, "delta": {"new": {"x": [1]}}, "finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
    b": after the end\n\n",
]


def test_every_frame_passes_by_itself_and_as_it_is(front: Proxy, server: Stub) -> None:
    """Each is sent when the client has the one before; all of them in one answer."""
    got = threading.Semaphore(1)

    server.script = one_by_one(ODD_FRAMES, got)
    with front.client() as client:
        client.send("POST", CHAT, json.dumps(chat_body("odd frames", stream=True)).encode())
        response = client.open_reply()
        for frame in ODD_FRAMES:
            assert response.read1(65536) == frame
            got.release()
        assert response.read1(65536) == b""


def test_only_named_fields_cross(front: Proxy, server: Stub) -> None:
    passed = {
        "openai-processing-ms": "5",
        "x-request-id": "r",
        "x-ratelimit-limit-tokens": "9",
        "content-language": "en",
    }
    kept = {
        "server": "uvicorn",
        "set-cookie": "a=b",
        "access-control-allow-origin": "*",
        "strict-transport-security": "max-age=1",
        "location": "http://elsewhere",
        "x-internal": "1",
        "alt-svc": "h3",
    }
    lines = [f"{name}: {value}" for name, value in (passed | kept).items()]
    server.script = lambda turn: turn.reply(chat(), *lines)
    reply = front.ask(chat_body("fields"))
    assert passed.items() <= reply.headers.items()
    assert kept.keys().isdisjoint(reply.headers)
    assert reply.headers["x-content-type-options"] == "nosniff"
