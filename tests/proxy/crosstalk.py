"""Not a load generator: many clients at once whose every answer is checked to the byte against its own question.

Each question has a marker of its own, and the answer follows from marker and caller alone, so whatever belongs to
another question, form or caller is seen at once. Clients leave at random, pipeline, ask again what they or others
asked before; the model server dribbles, pauses and resets. A complete answer must be the whole one; anything else
must be an error or a cut behind a true beginning.
"""

import asyncio
import json
import random
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tests.proxy.stub import CHAT

CLIENTS = 48
CALLERS = 5
LEAVES, AGAIN, PIPELINED, RESETS = 0.08, 0.15, 0.1, 0.04
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Question:
    """One request."""

    marker: str
    caller: int
    stream: bool

    @property
    def words(self) -> list[str]:
        """What is answered: some words that all bear marker and caller."""
        count = 1 + self._seed % 5
        return [f"{self.marker}/{self.caller}/{n} " for n in range(count)]

    @property
    def dies(self) -> bool:
        """Whether the server resets the connection in the middle of this answer."""
        return (self._seed >> 8) % 1000 < RESETS * 1000

    @property
    def _seed(self) -> int:
        return int.from_bytes(sha256(f"{self.marker} {self.caller}".encode()).digest()[:4], "big")

    def raw(self) -> bytes:
        options: dict[str, Any] = (
            {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        )
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": self.marker}], **options})
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {self.caller}\r\n"
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()

    def frames(self) -> list[bytes]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": word} for word in self.words]
        choices: list[list[dict[str, Any]]]
        choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
        choices += [[{"index": 0, "delta": {}, "finish_reason": "stop"}], []]
        frames = []
        for number, choice in enumerate(choices):
            usage = {"usage": {"total_tokens": 1}} if number == len(choices) - 1 else {}
            chunk: dict[str, Any] = {"id": self.marker, "object": "chat.completion.chunk", "choices": choice}
            frames.append(b"data: %b\n\n" % json.dumps({**chunk, **usage}).encode())
        return [*frames, DONE]

    def document(self) -> bytes:
        message = {"role": "assistant", "content": "".join(self.words)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        whole = {
            "id": self.marker,
            "object": "chat.completion",
            "choices": choices,
            "usage": {"total_tokens": 1},
        }
        return json.dumps(whole).encode()

    def said_by(self, body: bytes) -> str | None:
        """The text of a whole answer in the form that was asked for; None when it is none."""
        if not self.stream:
            return str(json.loads(body)["choices"][0]["message"]["content"])
        if not body.endswith(DONE):
            return None
        chunks = [json.loads(frame[6:]) for frame in body.decode().split("\n\n")[:-2]]
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])


@dataclass
class Tally:
    """What came of all the questions."""

    whole: int = 0
    failed: int = 0
    left: int = 0
    hits: int = 0
    joins: int = 0
    wrong: list[str] = field(default_factory=list)


class Server:
    """The model server: answers at its own pace, sometimes not to the end."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.calls = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with suppress(ConnectionError, IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = _fields(head)
                asked = json.loads(await reader.readexactly(int(fields["content-length"])))
                self.calls += 1
                caller = int(fields["authorization"].removeprefix("Bearer "))
                marker = asked["messages"][0]["content"]
                await self._answer(Question(marker, caller, bool(asked.get("stream"))), writer)
        writer.close()

    async def _answer(self, question: Question, writer: StreamWriter) -> None:
        if question.stream:
            pieces = [b"%x\r\n%b\r\n" % (len(frame), frame) for frame in question.frames()]
            kind, framing = b"text/event-stream", b"transfer-encoding: chunked"
            pieces.append(b"0\r\n\r\n")
        else:
            body = question.document()
            pieces = [body[:9], body[9:]]
            kind, framing = b"application/json", b"content-length: %d" % len(body)
        pieces[0] = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%b\r\n\r\n%b" % (kind, framing, pieces[0])
        if question.dies:
            writer.write(b"".join(pieces[: len(pieces) // 2]))
            await self._pause()
            writer.transport.abort()
            raise ConnectionResetError
        if self._random.random() < 0.5:
            pieces = [b"".join(pieces)]
        for piece in pieces:
            if self._random.random() < 0.3:
                await self._pause()
            writer.write(piece)
        await writer.drain()

    async def _pause(self) -> None:
        await asyncio.sleep(
            self._random.random() * 0.01
        )  # the pace of a server; nothing waits for it to be over


def _fields(head: bytes) -> dict[str, str]:
    lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:-2]]
    return {name.lower(): value.strip() for name, _, value in lines}


class Clients:
    """All the clients, each on a connection of its own at a time."""

    def __init__(self, port: int, total: int, seed: int) -> None:
        self.tally = Tally()
        self._port = port
        self._left = total
        self._random = random.Random(seed)
        self._asked: list[Question] = []
        self._number = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def _client(self) -> None:
        while self._left > 0:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                while self._left > 0 and await self._round(reader, writer):
                    pass
            except (ConnectionError, IncompleteReadError):
                self.tally.failed += 1
            finally:
                writer.close()

    async def _round(self, reader: StreamReader, writer: StreamWriter) -> bool:
        """Some questions in one piece and their answers in order; whether the connection goes on."""
        count = self._random.choice((2, 3)) if self._random.random() < PIPELINED else 1
        questions = [self._next() for _ in range(count)]
        writer.write(b"".join(question.raw() for question in questions))
        for question in questions:
            if self._random.random() < LEAVES:
                await self._leave(reader, writer)
                return False
            if not await self._check(question, reader):
                return False
        return True

    def _next(self) -> Question:
        self._left -= 1
        draw = self._random.random
        if self._asked and draw() < AGAIN:
            known = self._random.choice(self._asked[-200:])
            return Question(known.marker, self._random.randrange(CALLERS), draw() < 0.5)
        self._number += 1
        question = Question(f"q{self._number}", self._random.randrange(CALLERS), draw() < 0.5)
        self._asked.append(question)
        if len(self._asked) > 1000:
            del self._asked[:500]
        return question

    async def _leave(self, reader: StreamReader, writer: StreamWriter) -> None:
        """At once, after the first bytes, or with a reset."""
        self.tally.left += 1
        how = self._random.randrange(3)
        if how == 1:
            with suppress(TimeoutError):
                await asyncio.wait_for(reader.read(50), 0.01)
        elif how == 2:
            writer.transport.abort()

    async def _check(self, question: Question, reader: StreamReader) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        status, fields = int(head[9:12]), _fields(head)
        body, complete = await _body(reader, fields)
        tally = self.tally
        tally.hits += fields.get("x-cache") == "HIT"
        tally.joins += fields.get("x-cache") == "JOIN"
        if status == 200 and complete:
            said = question.said_by(body)
            tally.whole += 1
            if said != "".join(question.words) or f'"id": "{question.marker}"'.encode() not in body.replace(
                b'"id":"', b'"id": "'
            ):
                tally.wrong.append(f"{question}: {body!r}")
            return True
        tally.failed += 1
        if not question.dies:
            tally.wrong.append(f"{question}: {status} {body!r}")
        began = body.partition(b'data: {"error"')[0] if question.stream else body
        true = b"".join(question.frames()) if question.stream else question.document()
        if status == 200 and not true.startswith(began):
            tally.wrong.append(f"{question}: began with {began!r}")
        return complete


async def _body(reader: StreamReader, fields: dict[str, str]) -> tuple[bytes, bool]:
    """The body, and whether it came to the end of its framing."""
    if "content-length" in fields:
        try:
            return await reader.readexactly(int(fields["content-length"])), True
        except IncompleteReadError as cut:
            return cut.partial, False
        except ConnectionError:
            return b"", False
    body = b""
    try:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    except (IncompleteReadError, ConnectionError):
        return body, False
    return body, True
