"""Not a cache: asks given questions through our own front door once a model is ready, so that they are answered later.

``PREWARM_CACHE`` names a file with one request a line: a JSON body for ``/v1/chat/completions``, or
``{"path": "/v1/…", "body": {…}}``. What is stored already costs nothing; the rest is asked two at a time.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from llmpod.config import ProxySettings
from llmpod.observe import Log
from llmpod.proxy.keeper import LOOK_SECONDS, Keeper
from llmpod.proxy.wish import REPLAY_ONLY

MAX_QUESTIONS: Final = 100
AT_ONCE: Final = 2


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
        log: told of what was asked, and of lines that are no requests.
    """

    def __init__(self, settings: ProxySettings, keeper: Keeper, log: Log) -> None:
        self._settings = settings
        self._keeper = keeper
        self._log = log
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go to work in the background, when there is a file and a model server may be asked."""
        if self._settings.prewarm_cache and self._settings.cache_mode != REPLAY_ONLY:
            self._task = asyncio.create_task(self._run(Path(self._settings.prewarm_cache)))

    async def aclose(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, path: Path) -> None:
        warmed: object = None
        while True:
            ready = tuple(d.origin for d in self._keeper.destinations if d.origin is not None)
            if ready and ready != warmed:
                warmed = ready
                await self._ask_all(await asyncio.to_thread(self._questions, path))
            await asyncio.sleep(LOOK_SECONDS)

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
        slots, patience = asyncio.Semaphore(AT_ONCE), self._settings.total_seconds
        async with httpx.AsyncClient(
            verify=_trust(self._settings), trust_env=False, timeout=patience
        ) as client:

            async def ask(question: Question) -> bool:
                async with slots:
                    return await self._answered(client, question)

            failed = (await asyncio.gather(*(ask(question) for question in questions))).count(False)
        self._log.info("prewarmed", asked=len(questions), failed=failed)

    async def _answered(self, client: httpx.AsyncClient, question: Question) -> bool:
        scheme = "https" if self._settings.use_https else "http"
        url = f"{scheme}://127.0.0.1:{self._settings.port}{question.path}"
        try:
            answer = await client.post(url, json=question.body)
        except httpx.HTTPError as e:
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
