"""Not the hot path: a stored answer to one client where that takes a wait, a condition or a pace."""

import asyncio
from typing import NamedTuple

from llmpod.cache import Entry, RequestKey
from llmpod.cache.sse import iter_frames
from llmpod.errors import UpstreamInvalid
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.headers import get
from llmpod.proxy.hits import SMALL, Hits, can_serve, form_of, render, split
from llmpod.proxy.wish import Wish, has_already, pace_of


class Hit(NamedTuple):
    """A stored answer, ready to be sent."""

    entry: Entry
    rendered: bytes


class Stored:
    """Looks answers up, and sends them.

    Args:
        hits: the stored answers in their forms.
        pace: events a second of a stored stream where the request does not say; 0: at once.
    """

    def __init__(self, hits: Hits, *, pace: int) -> None:
        self._hits = hits
        self._pace = pace

    async def look(self, key: RequestKey, wish: Wish) -> Hit | str:
        """The answer that may be sent to this, in the form that is wanted; or why there is none."""
        if not wish.read:
            return wish.reason
        entry = await self._hits.find(key)
        if entry is None:
            return "new"
        if not can_serve(entry, key):
            return "what is stored lacks the token counts"
        if not wish.accepts(self._hits.age(entry)):
            return "what is stored is older than max-age"
        try:
            return Hit(entry, await self._rendered(entry, key))
        except UpstreamInvalid:  # frames that cannot be put together
            return "what is stored cannot be converted"

    async def send(self, hit: Hit, ask: Ask, answer: Answer) -> None:
        """Send it: 304 to a client that has it already, else the body, at the pace that is wanted."""
        fields, body = split(hit.rendered)
        fields.append((b"age", b"%d" % self._hits.age(hit.entry)))
        answer.cache, answer.reason = "HIT", "stored"
        if has_already(ask.headers, get(fields, b"etag")):
            answer.reason = "not modified"
            answer.start(304, [item for item in fields if item[0] in (b"etag", b"age")])
            answer.finish()
            return
        key = ask.key
        pace = pace_of(ask.headers, self._pace) if key is not None and key.stream else 0
        answer.start(200, fields)
        if pace:
            await _paced(body, pace, answer)
        else:
            answer.write(body)
        answer.finish()

    async def _rendered(self, entry: Entry, key: RequestKey) -> bytes:
        if form_of(key) not in entry.prebuilt and len(entry.body) > SMALL:
            rendered = await asyncio.to_thread(render, entry, key)
            self._hits.remember(entry, key, rendered)
            return rendered
        return self._hits.rendered(entry, key)


async def _paced(body: bytes, pace: int, answer: Answer) -> None:
    """Event by event, each in its own time; a client that reads more slowly sets the pace."""
    loop = asyncio.get_running_loop()
    clear = asyncio.Event()
    answer.when_clear = clear.set
    due = loop.time()
    for frame in iter_frames(body):
        while answer.congested and not answer.over:
            clear.clear()
            await clear.wait()
        answer.write(frame)
        due = max(due + 1 / pace, loop.time() - 1)
        await asyncio.sleep(max(0.0, due - loop.time()))
