"""Not a health endpoint: asks a model server, through the path its users take, whether it really answers.

Ready means three things in this order: it refuses a caller without the key, it lists the right model, and it
completes one token. A provider's "running" means none of them.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import requests
import urllib3.exceptions

from llmpod.bounded import bounded
from llmpod.model import ANY_NAME, Health, Instance, Phase
from llmpod.secret import Secret
from llmpod.text import one_line
from llmpod.veil import Veil
from llmpod.web import Session

MAX_BYTES = 2**20
MAX_DETAIL = 300
LOOKED_AT = 8192  # bytes of an error: far more than is shown, so that no secret is cut there that would be
MODELS = "/v1/models"
_NO_LIST = (404, 405, 500, 501)  # not 503: llama.cpp answers that while it loads
_REFUSED = 401  # RFC 9110, section 15.5.2: no valid credentials
_OTHER_KEY = (
    "the server answers 401: it wants another key than the one it was given in its environment (`api_key_env`);"
    " take its own `--api-key` out of its command"
)
_ENDLESS = "its answer does not end"
_MESSAGES = [{"role": "user", "content": "ping"}]
_QUESTIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": _MESSAGES, "max_tokens": 1}),
    ("/v1/completions", {"prompt": "ping", "max_tokens": 1}),  # models without a chat template
    ("/v1/embeddings", {"input": "ping"}),  # embedding models
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer."""

    status: int
    body: bytes


class HttpProber:
    """Asks model servers over HTTP.

    The server is not trusted: an answer that drips or does not end, in its header or its body, is cut off by time and
    by size. A whole check takes at most ``2 * quick_seconds + answer_seconds``.

    Args:
        veil: takes the secrets out of what servers say.
        quick_seconds: limit of one small request, from its start to its last byte.
        answer_seconds: limit of the one-token completion (the first one may compile kernels).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        veil: Veil | None = None,
        *,
        quick_seconds: float = 5.0,
        answer_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._veil = veil or Veil()
        self._quick = quick_seconds
        self._answer = answer_seconds
        self._clock = clock

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        """How far the server on ``seen`` got.

        Args:
            seen: the machine; ``base_url`` may be None while it has no address.
            api_key: the key it was given; None: it has none.
            served_name: the model name it must list; ``ANY_NAME``: whatever it lists.
            was_ready: it completed a token before, so listing the model is proof enough now.
        """
        if seen.base_url is None or not seen.container_up:
            return Health(Phase.CREATED, seen.detail or "the machine is being set up or pulls the image")
        with Session() as session:
            server = _Server(session, seen.base_url, api_key, clock=self._clock)
            health = _pinged(server, seen.ping_path, self._quick) or self._first(
                server, served_name, key_optional=seen.key_optional, was_ready=was_ready
            )
        shown = self._veil.mask(
            one_line(health.detail)
        )  # before it is cut: half a secret is not known for one
        return replace(health, detail=one_line(shown, MAX_DETAIL))

    def _first(self, server: "_Server", served_name: str, *, key_optional: bool, was_ready: bool) -> Health:
        bare = server.ask(MODELS, within=self._quick, with_key=False)
        if isinstance(bare, str):
            return Health(Phase.BOOTING, bare)
        if bare.status == 200 and not key_optional:
            return Health(Phase.LOADING, "it answers without its key", open_to_all=True)
        if key_optional and (bare.status in _NO_LIST or (bare.status == 200 and not _names(bare))):
            if served_name == ANY_NAME:
                return Health(Phase.READY)  # it answers, and nobody knows by which name to ask it for more
            return self._complete(server, served_name)  # `transformers serve` lists none of its own
        if bare.status not in (200, 401):
            return Health(Phase.BOOTING, f"HTTP {bare.status} instead of 401")
        return self._model(server, served_name, was_ready=was_ready)

    def _model(self, server: "_Server", served_name: str, *, was_ready: bool) -> Health:
        listing = server.ask(MODELS, within=self._quick)
        if isinstance(listing, str):
            return Health(Phase.LOADING, listing)
        if listing.status == _REFUSED:
            return server.refuses()
        if listing.status != 200:
            return Health(Phase.LOADING, f"{MODELS} answers {listing.status}")
        names = _names(listing)
        if served_name == ANY_NAME and names:
            served_name = names[0]
        if served_name not in names:
            return Health(Phase.LOADING, f"it serves {', '.join(names) or 'nothing'}, not {served_name}")
        return Health(Phase.READY) if was_ready else self._complete(server, served_name)

    def _complete(self, server: "_Server", served_name: str) -> Health:
        detail, limit = "", self._clock() + self._answer
        for path, question in _QUESTIONS:
            asked = {"model": served_name, **question}
            answer = server.ask(path, asked, within=limit - self._clock())
            if isinstance(answer, str):
                return Health(Phase.LOADING, answer)
            if answer.status == 200:
                return Health(Phase.READY)
            if answer.status == _REFUSED:  # llama.cpp lists its model to everybody
                return server.refuses()
            said = answer.body[:LOOKED_AT].decode(errors="replace")
            detail = detail or f"{path} answers {answer.status}: {said}"
            if answer.status not in (400, 404, 405, 422):
                break
        return Health(Phase.LOADING, detail)


@dataclass(frozen=True, slots=True)
class _Server:
    """One model server during one check; after an answer that was given up it is not asked again."""

    session: Session
    base_url: str
    api_key: Secret | None = field(repr=False)
    clock: Callable[[], float] = field(kw_only=True)

    def refuses(self) -> Health:
        """What it means that it answers 401 to what we send."""
        if self.api_key is None:
            return Health(Phase.LOADING, "the server answers 401: it wants a key, and none is known for it")
        return Health(Phase.LOADING, _OTHER_KEY, wants_other_key=True)

    def ask(
        self, path: str, body: Mapping[str, Any] | None = None, *, within: float, with_key: bool = True
    ) -> Answer | str:
        """The whole answer to a GET, or to a POST of ``body``; or in words why there is none in so many seconds."""
        if within <= 0:
            return _ENDLESS
        headers = {"Authorization": f"Bearer {self.api_key.reveal()}"} if with_key and self.api_key else {}
        try:
            return bounded(partial(self._exchange, path, body, headers, within=within), within)
        except TimeoutError:
            return _ENDLESS
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            return f"nothing answers at {self.base_url} yet ({type(e).__name__})"

    def _exchange(
        self, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str], *, within: float
    ) -> Answer | str:
        limit = self.clock() + within
        with self.session.request(
            "GET" if body is None else "POST",
            self.base_url + path,
            json=body,
            headers=headers,
            timeout=0.9 * within,  # so that its words for it come before the end of our patience
            allow_redirects=False,
            stream=True,
        ) as response:
            return self._read(response, limit)

    def _read(self, response: requests.Response, limit: float) -> Answer | str:
        content = b""
        while piece := response.raw.read1(65536):
            content += piece
            if len(content) > MAX_BYTES:
                return f"its answer is larger than {MAX_BYTES} bytes"
            if self.clock() > limit:
                return _ENDLESS
        return Answer(response.status_code, content)


def _pinged(server: "_Server", path: str, within: float) -> Health | None:
    """Why the server is not ready, by its own word on that path; None: ask further."""
    if not path:
        return None
    answer = server.ask(path, within=within)
    if isinstance(answer, str):
        return Health(Phase.BOOTING, answer)
    if answer.status == _REFUSED:
        return server.refuses()
    return None if answer.status in (200, 404) else Health(Phase.LOADING, f"{path} answers {answer.status}")


def _names(listing: Answer) -> list[str]:
    try:
        return [str(item["id"]) for item in json.loads(listing.body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
