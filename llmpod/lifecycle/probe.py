"""Not a health endpoint: asks a model server, through the path its users take, whether it really answers.

Ready means three things in this order: it refuses a caller without the key, it lists the right model, and it
completes one token. A provider's "running" means none of them.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests
import urllib3.exceptions

from llmpod.model import Health, Instance, Phase

MAX_BYTES = 2**20
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

    The server is not trusted: an answer that drips or does not end is cut off by time and by size.

    Args:
        quick_seconds: limit of one small request, from its start to its last byte.
        answer_seconds: limit of the one-token completion (the first one may compile kernels).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        quick_seconds: float = 5.0,
        answer_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quick = quick_seconds
        self._answer = answer_seconds
        self._clock = clock
        self._session = requests.Session()
        self._session.trust_env = False

    def close(self) -> None:
        self._session.close()

    def check(self, seen: Instance, api_key: str, served_name: str, *, was_ready: bool) -> Health:
        """How far the server on ``seen`` got.

        Args:
            seen: the machine; ``base_url`` may be None while it has no address.
            api_key: the key it was given.
            served_name: the model name it must list.
            was_ready: it completed a token before, so listing the model is proof enough now.
        """
        if seen.base_url is None or not seen.container_up:
            return Health(Phase.CREATED, "the machine is being set up or pulls the image")
        bare = self._get(f"{seen.base_url}/v1/models", None)
        if isinstance(bare, str):
            return Health(Phase.BOOTING, bare)
        if bare.status == 200:
            return Health(Phase.LOADING, "it answers without its key", open_to_all=True)
        if bare.status != 401:
            return Health(Phase.BOOTING, f"HTTP {bare.status} instead of 401")
        return self._model(seen.base_url, api_key, served_name, was_ready=was_ready)

    def _model(self, base_url: str, api_key: str, served_name: str, *, was_ready: bool) -> Health:
        listing = self._get(f"{base_url}/v1/models", api_key)
        if isinstance(listing, str):
            return Health(Phase.LOADING, listing)
        if listing.status != 200:
            return Health(Phase.LOADING, f"/v1/models answers {listing.status}")
        names = _names(listing)
        if served_name not in names:
            return Health(Phase.LOADING, f"it serves {', '.join(names) or 'nothing'}, not {served_name}")
        return Health(Phase.READY) if was_ready else self._complete(base_url, api_key, served_name)

    def _complete(self, base_url: str, api_key: str, served_name: str) -> Health:
        detail = ""
        for path, question in _QUESTIONS:
            asked = {"model": served_name, **question}
            answer = self._ask("POST", base_url + path, api_key, body=asked, within=self._answer)
            if isinstance(answer, str):
                return Health(Phase.LOADING, answer)
            if answer.status == 200:
                return Health(Phase.READY)
            detail = detail or f"{path} answers {answer.status}: {answer.body[:160].decode(errors='replace')}"
            if answer.status not in (400, 404, 405, 422):
                break
        return Health(Phase.LOADING, detail)

    def _get(self, url: str, api_key: str | None) -> Answer | str:
        return self._ask("GET", url, api_key, body=None, within=self._quick)

    def _ask(
        self, method: str, url: str, api_key: str | None, *, body: Mapping[str, Any] | None, within: float
    ) -> Answer | str:
        """The whole answer, or in words why there is none."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limit = self._clock() + within
        try:
            with self._session.request(
                method,
                url,
                json=body,
                headers=headers,
                timeout=(min(self._quick, within), within),
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._read(response, limit)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            return f"the server does not answer yet ({type(e).__name__})"

    def _read(self, response: requests.Response, limit: float) -> Answer | str:
        content = b""
        while piece := response.raw.read1(65536):
            content += piece
            if len(content) > MAX_BYTES:
                return f"its answer is larger than {MAX_BYTES} bytes"
            if self._clock() > limit:
                return "its answer does not end"
        return Answer(response.status_code, content)


def _names(listing: Answer) -> list[str]:
    try:
        return [str(item["id"]) for item in json.loads(listing.body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
