"""Not a cache: asks questions through our own front door once a model is ready, so that others are answered sooner.

``PREWARM_CACHE`` names a file with one request a line: a JSON body for ``/v1/chat/completions``, or
``{"path": "/v1/…", "body": {…}}``. What is stored already costs nothing; the rest is asked two at a time.
``PREWARM_PROMPTS`` is how many of the most used beginnings of conversations the server is shown again, one after the
other, until their tokens or the time they take at the machine's price are used up.

None of this counts as use, or a pod would be kept awake by its own start: requests bear a word that only we know.
"""

import asyncio
import contextlib
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmpod.config import Auth, ProxySettings, digest_of, reached_at
from llmpod.observe import Log
from llmpod.proxy.ask import Ask
from llmpod.proxy.headers import get
from llmpod.proxy.keeper import LOOK_SECONDS, Keeper
from llmpod.proxy.prefixes import Prefixes
from llmpod.proxy.wish import REPLAY_ONLY

if TYPE_CHECKING:
    import httpx  # a twelfth of the proxy's start, and most never warm anything up

MAX_QUESTIONS: Final = 100
AT_ONCE: Final = 2
_UNSHARED: Final = "Keys share nothing, so nobody would be served PREWARM_CACHE; set `cache_shared`."


class Warmth:
    """What warming up and serving know of each other.

    Attributes:
        prefixes: how conversations began; None when nobody wants to know.
    """

    _FIELD: Final = "x-llmpod-warming"

    def __init__(self, settings: ProxySettings) -> None:
        self._word = secrets.token_hex(16)
        self.adopt(settings)
        self._wanted = bool(settings.prewarm_cache or settings.prewarm_prompts)
        self.prefixes = Prefixes() if settings.prewarm_prompts else None

    def adopt(self, settings: ProxySettings) -> None:
        """Go by who may call now."""
        self._needs_key = settings.auth is Auth.KEYS

    @property
    def key(self) -> str:
        """Digest of the key with which a warm-up calls, where callers need one."""
        return digest_of(self._word)

    @property
    def fields(self) -> dict[str, str]:
        """What the requests of a warm-up bear."""
        own = {"authorization": f"Bearer {self._word}"} if self._needs_key else {}
        return {self._FIELD: self._word, **own}

    def is_ours(self, ask: Ask) -> bool:
        """Whether a warm-up sent this request."""
        return self._wanted and get(ask.headers, self._FIELD.encode()) == self._word.encode()

    def is_use(self, ask: Ask) -> bool:
        """Whether a request that goes to the model server is somebody's; it is taken note of if so."""
        if self.is_ours(ask):
            return False
        if self.prefixes is not None:
            self.prefixes.note(ask)
        return True


@dataclass(frozen=True, slots=True)
class Question:
    """One request to ask."""

    path: str
    body: dict[str, Any]


class Prewarmer:
    """Asks the questions each time a model server has become ready.

    Args:
        settings: names the file, and says where our own front door is.
        keeper: knows when a model server is ready.
        warmth: how conversations began, and what keeps our requests from counting.
        log: told of what was asked, and of lines that are no requests.
    """

    def __init__(self, settings: ProxySettings, keeper: Keeper, warmth: Warmth, log: Log) -> None:
        self._settings = settings
        self._keeper = keeper
        self._warmth = warmth
        self._log = log
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go to work in the background, when there is something to ask and a model server may be asked."""
        if self._useless:
            self._log.warning("prewarm_unshared", reason=_UNSHARED)
        wanted = self._file or self._settings.prewarm_prompts
        if wanted and self._settings.cache_mode != REPLAY_ONLY:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def _useless(self) -> bool:
        """Nobody would be served what is stored for us."""
        settings = self._settings
        return bool(settings.prewarm_cache) and settings.auth is Auth.KEYS and not settings.cache_shared

    @property
    def _file(self) -> str | None:
        return None if self._useless else self._settings.prewarm_cache

    async def _run(self) -> None:
        warmed: object = ()
        prefixes, file = self._warmth.prefixes, self._file
        while True:
            if prefixes is not None and prefixes.noted:
                await asyncio.to_thread(prefixes.read)
            servers = (d.origin for d in self._keeper.destinations if not d.bills_requests)
            ready = tuple(origin for origin in servers if origin is not None)
            if ready != warmed:
                warmed = ready
                if ready and prefixes is not None:
                    await self._show(prefixes)
                if ready and file:
                    await self._ask_all(await asyncio.to_thread(self._questions, Path(file)))
            await asyncio.sleep(LOOK_SECONDS)

    async def _show(self, prefixes: Prefixes) -> None:
        """Let the server see the most used beginnings, within the bounds."""
        settings = self._settings
        chosen = prefixes.top(settings.prewarm_prompts, tokens=settings.prewarm_tokens)
        rate = max((d.usd_per_hour or 0.0 for d in self._keeper.destinations), default=0.0)
        began, shown = time.monotonic(), 0
        async with self._client({"cache-control": "no-store"}) as client:
            for body in chosen:
                if (time.monotonic() - began) / 3600 * rate > settings.prewarm_usd:
                    break
                shown += await self._answered(client, Question("/v1/chat/completions", body))
        if chosen:
            self._log.info("prewarmed_prompts", known=len(chosen), shown=shown)

    def _questions(self, path: Path) -> list[Question]:
        try:
            lines = path.expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            self._log.warning("prewarm_unreadable", file=str(path), reason=str(e))
            return []
        found = list(self._parsed(lines))
        if len(found) > MAX_QUESTIONS:
            self._log.warning("prewarm_cut", asked=MAX_QUESTIONS, left_out=len(found) - MAX_QUESTIONS)
        return found[:MAX_QUESTIONS]

    def _parsed(self, lines: list[str]) -> Iterator[Question]:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield _question(json.loads(line))
            except (ValueError, TypeError, RecursionError) as e:
                self._log.warning("prewarm_bad_line", line=number, reason=str(e))

    async def _ask_all(self, questions: list[Question]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)
        async with self._client({}) as client:

            async def ask(question: Question) -> bool:
                async with slots:
                    return await self._answered(client, question)

            failed = (await asyncio.gather(*(ask(question) for question in questions))).count(False)
        self._log.info("prewarmed", asked=len(questions), failed=failed)

    def _client(self, fields: dict[str, str]) -> "httpx.AsyncClient":
        import httpx

        return httpx.AsyncClient(
            headers={**self._warmth.fields, **fields},
            verify=_trust(self._settings),
            trust_env=False,
            timeout=self._settings.total_seconds,
        )

    async def _answered(self, client: "httpx.AsyncClient", question: Question) -> bool:
        import httpx

        scheme, host = "https" if self._settings.use_https else "http", reached_at(self._settings.host)
        name = f"[{host}]" if ":" in host else host
        url = f"{scheme}://{name}:{self._settings.port}{question.path}"
        try:
            answer = await client.post(url, json=question.body)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ValueError,
        ) as e:  # the last two: no request can be made of it
            self._log.warning("prewarm_failed", path=question.path, reason=type(e).__name__)
            return False
        return answer.status_code == 200


def _question(value: object) -> Question:
    """Raises ValueError or TypeError with what is wrong."""
    if not isinstance(value, dict):
        raise TypeError("a request is a JSON object")
    if "path" not in value:
        return Question("/v1/chat/completions", value)
    path, body = value["path"], value.get("body")
    if not isinstance(path, str) or not path.startswith("/v1/") or not isinstance(body, dict):
        raise ValueError('a request with a path looks like {"path": "/v1/…", "body": {…}}')
    return Question(path, body)


def _trust(settings: ProxySettings) -> ssl.SSLContext:
    """Our own certificate, whatever name it bears: the connection goes to this very process."""
    context = ssl.create_default_context()
    if settings.use_https and settings.ssl_cert:
        context.load_verify_locations(cafile=settings.ssl_cert)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
