"""A model server that is an enemy, or broken: what it may say, and how much of it (T12 to T18)."""

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator

import pytest

from tests.proxy import hostile
from tests.proxy.conftest import _base
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import CHAT, Stub, Turn, chat, plain, stub
from tests.support.wait import eventually

METADATA = "169.254.7.7"
KEY = "sk-pinned-to-the-configured-place"
# what every answer of ours may hold, besides what clients read of the model server's
OURS = {
    *(
        "date",
        "content-type",
        "content-length",
        "transfer-encoding",
        "x-cache",
        "x-cache-reason",
        "connection",
    ),
    *("x-content-type-options", "content-security-policy", "cross-origin-resource-policy"),
}


def says(raw: bytes) -> Callable[[Turn], None]:
    """A script that says this and closes, as soon as the proxy has had enough or nothing is left."""

    def script(turn: Turn) -> None:
        turn.send(raw)
        turn.wait_gone(within=0.2)
        turn.close()

    return script


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_what_no_honest_server_says_is_refused(front: Proxy, server: Stub, name: str) -> None:
    """T12, F13: 502 in OpenAI's shape with nothing of the answer in it, and the connection is not used again.

    Where the fault stands behind a good head that has been passed on by then, the answer is cut.
    """
    server.script = says(hostile.REFUSED[name])
    reply = front.ask(chat_body(f"hostile: {name}"))
    assert set(reply.headers) <= OURS
    assert METADATA.encode() not in reply.body
    if not reply.cut:
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
        assert b"hostile server" not in reply.body
    server.script = plain
    assert front.ask(chat_body(f"after {name}")).body == chat(f"you said after {name}")
    assert front.ask(chat_body(f"hostile: {name}")).cache == "MISS"


@pytest.mark.parametrize("name", hostile.HARMLESS)
def test_what_passes_has_lost_what_could_be_obeyed(front: Proxy, server: Stub, name: str) -> None:
    """T12: only fields of the list cross, no content type that a browser runs, all of it in a sandbox."""
    server.script = says(hostile.HARMLESS[name])
    reply = front.ask(chat_body(f"harmless: {name}"))
    assert (reply.status, reply.body) == (200, hostile.BODY)
    assert set(reply.headers) <= OURS
    assert reply.headers["content-type"] in ("application/json", "application/octet-stream")
    assert reply.headers["x-cache"] == "MISS"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in reply.headers["content-security-policy"]


def test_a_type_of_two_is_neither(front: Proxy, server: Stub) -> None:
    server.script = says(hostile.HARMLESS["application/json,text/html"])
    assert front.ask(chat_body("two types")).headers["content-type"] == "application/octet-stream"


def test_what_clients_read_crosses(front: Proxy, server: Stub) -> None:
    server.script = says(hostile.framed(hostile.JSON, *hostile.CROSSING))
    reply = front.ask(chat_body("fields that clients read"))
    sent = dict(line.split(": ") for line in hostile.CROSSING)
    assert {name: reply.headers[name] for name in sent} == sent


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Stub]]:
    """A proxy with a key for its model server, and that server."""
    cache = tmp_path_factory.mktemp("keyed") / "cache"
    with stub() as server:
        environ = settings(cache, server.url, RUNPOD_ENDPOINT_KEY=KEY)
        with proxy({**_base(), **environ}) as front:
            yield front, server


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed_and_no_key_goes_along(keyed: tuple[Proxy, Stub], status: int) -> None:
    """T14: whoever is named in a redirect hears nothing; the credential goes to the configured place alone."""
    front, server = keyed
    with stub() as other:
        line = f"location: {other.url}{CHAT}"
        server.script = says(hostile.head(line, "content-length: 0", status=f"{status} X"))
        reply = front.ask(chat_body(f"go {status}"))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
        assert "redirect" in reply.json["error"]["message"]
        assert str(other.port) not in json.dumps([reply.json, reply.headers])
        assert other.connections == 0
    assert server.turns[-1].headers["authorization"] == f"Bearer {KEY}"


def test_the_callers_credentials_stay_here(keyed: tuple[Proxy, Stub]) -> None:
    """T17, T18: what the model server needs is written anew; a field named by ``Connection`` changes nothing."""
    hidden = {
        "Authorization": "Bearer sk-of-the-caller",
        "Cookie": "session=1",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Host": "evil",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "Via": "1.1 evil",
        "TE": "trailers",
        "Keep-Alive": "timeout=5",
        "Proxy-Authorization": "Basic eDp5",
        "Accept-Encoding": "gzip, br",
        "User-Agent": "a-private-tool/1.0",
        "Referer": "http://intranet/",
        "X-Stainless-Arch": "x64",
        "Connection": "authorization, content-type, host, x-request-id",
        "Traceparent": "00-1",
    }
    front, server = keyed
    server.script = plain
    assert front.ask(chat_body("hidden"), headers=hidden).status == 200
    assert server.turns[-1].headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "llmpod",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(server.turns[-1].body)),
        "authorization": f"Bearer {KEY}",
    }


def test_nothing_in_a_request_chooses_the_server(front: Proxy, server: Stub) -> None:
    """LiteLLM's CVE-2024-6587: the address of the model server is the configuration's alone."""
    with stub() as other:
        named = dict.fromkeys(("api_base", "base_url", "endpoint", "url"), other.url)
        headers = {"X-Forwarded-Host": f"127.0.0.1:{other.port}", "OpenAI-Base-Url": other.url}
        assert front.ask(chat_body("elsewhere", **named), headers=headers).status == 200
        assert other.connections == 0


# --- how much --------------------------------------------------------------------------------------------------------
STREAM = hostile.head("content-type: text/event-stream", hostile.CHUNKED)


def pours(head: bytes, piece: bytes) -> tuple[Callable[[Turn], None], list[int]]:
    """A script that says a head and then 200 times the same chunk, and the sizes of those that went out."""
    sent = list[int]()

    def script(turn: Turn) -> None:
        turn.send(head)
        for _ in range(200):
            turn.chunk(piece)
            sent.append(len(piece))

    return script, sent


@pytest.mark.parametrize(
    ("head", "path", "piece"),
    [
        (hostile.head("content-type: text/plain", hostile.CHUNKED, status="500 X"), "/v1/files", 2**16),
        (hostile.head(hostile.JSON, hostile.CHUNKED), "/v1/models", 2**20),
    ],
    ids=["an error: 1 MiB", "what is put together or changed: 64 MiB"],
)
def test_what_must_be_there_whole_is_bounded(
    front: Proxy, server: Stub, head: bytes, path: str, piece: int
) -> None:
    """T13: before a client can have any of it."""
    server.script, sent = pours(head, b" " * piece)
    reply = front.get(path)
    assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_invalid")
    assert "bytes or more" in reply.json["error"]["message"]
    assert len(sent) < 200


DEEP = b"[" * 100_000 + b"]" * 100_000
TWISTED = {
    "deep": DEEP,
    "deep inside": b'{"object":"list","choices":' + DEEP + b',"data":' + DEEP + b',"error":' + DEEP + b"}",
    "not numbers": b'{"choices":NaN,"data":Infinity,"usage":{"total_tokens":1e999}}',
    "5000 digits": b'{"choices":[{"index":%b}],"data":[{"index":%b}]}' % ((b"9" * 5000,) * 2),
    "bad UTF-8": b'{"choices":["\xff\xfe"],"data":["\xff"],"error":"\xff"}',
    "half a pair": b'{"model":"\\ud800","choices":[{"index":0,"finish_reason":"stop","delta":{"content":"\\ud800"},'
    b'"message":{"content":"\\ud800"}}],"data":[{"id":"\\ud800"}],"error":{"message":"\\ud800"}}',
    "other types": b'{"choices":[null,1,"x",[],{"delta":[1],"message":7,"index":"a"}],"data":[null,1,{"id":5}],'
    b'"usage":[1],"output":7,"content":3,"model":[1],"error":[{"msg":5}]}',
    "nothing": b"",
}
FORMS: dict[str, Callable[[Turn, bytes], None]] = {
    "document": lambda turn, body: turn.reply(body),
    "error": lambda turn, body: turn.reply(body, status="400 X"),
    "stream": lambda turn, body: turn.send(
        STREAM + hostile.chunks(b"data: " + body.replace(b"\n", b" ") + b"\n\ndata: [DONE]\n\n")
    ),
}
PATHS = {
    CHAT: chat_body("q"),
    "/v1/completions": {"model": "m", "prompt": "q"},
    "/v1/embeddings": {"model": "m", "input": ["a", "b"]},
    "/v1/responses": {"model": "m", "input": "q"},
    "/v1/messages": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "q"}]},
}


@pytest.mark.parametrize("name", TWISTED)
def test_no_json_of_theirs_is_a_bug_of_ours(front: Proxy, server: Stub, name: str) -> None:
    """Whatever is read of an answer, none of it makes a 500 here; the fixture fails on a traceback in the log."""
    for form, give in FORMS.items():
        server.script = lambda turn, give=give: give(turn, TWISTED[name])  # type: ignore[misc]
        for path, body in PATHS.items():
            for stream in (False, True):
                asked = {**body, "stream": stream, "user": f"{name} {form}", "seed": len(name + form)}
                assert front.ask(asked, path=path).status in (200, 400, 502), (form, path, stream)
        assert front.get("/v1/models").status in (200, 400, 502)
        assert front.get("/v1/models/m").status in (200, 400, 404, 502)


def test_half_a_pair_of_surrogates_is_put_together(front: Proxy, server: Stub) -> None:
    """A server that counts UTF-16 cuts an emoji in two; both halves, and one alone, are JSON that UTF-8 cannot say."""
    first, rest = b'{"choices":[{"index":0,"delta":{"content":"', b'"}}]}'
    last = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    events = (first + b"\\ud83d" + rest, first + b"\\ude00" + rest, last, b"[DONE]")
    sent = b"".join(b"data: " + event + b"\n\n" for event in events)
    server.script = lambda turn: turn.send(STREAM + hostile.chunks(sent))
    body = chat_body("an emoji in two")
    assert front.ask({**body, "stream": True}).body == sent
    assert front.ask(body).json["choices"][0]["message"]["content"] == "\N{GRINNING FACE}"


def test_a_flood_after_the_answer_ends_the_connection(front: Proxy, server: Stub) -> None:
    """What comes when nobody asked belongs to nobody; the next question goes over a new connection."""

    sent = threading.Event()

    def script(turn: Turn) -> None:
        plain(turn)
        turn.send(hostile.framed(hostile.JSON, body=b'{"poison": 1}'))
        sent.set()

    server.script = script
    first = front.ask(chat_body("before the poison"))
    assert first.body == chat("you said before the poison")
    assert sent.wait(10)
    front.get("/livez")  # the proxy's loop has turned since
    server.script = plain
    before = server.connections
    assert front.ask(chat_body("drink")).body == chat("you said drink")
    assert server.connections == before + 1


def test_a_server_that_repeats_its_key_tells_nobody(keyed: tuple[Proxy, Stub]) -> None:
    """An honest server names the key that it refuses; neither the caller nor the log needs to read it."""
    front, server = keyed
    basic = b64encode(f"u:{KEY}".encode()).decode()
    error = {"message": f"Incorrect API key provided: {KEY}. You sent {basic}", "type": "x", "code": "k"}
    server.script = lambda turn: turn.reply(json.dumps({"error": error}).encode(), status="401 X")
    reply = front.ask(chat_body("whose key"))
    assert reply.status == 401
    assert reply.json["error"]["message"] == "Incorrect API key provided: ***. You sent ***"
    front.get(f"/v1/models/{KEY}")
    front.get(f"/v1/files/{basic}?key={KEY}")
    eventually(lambda: "/v1/files/***" in front.process.err)
    assert KEY not in front.process.err + front.process.out
    assert basic not in front.process.err
