"""Not a health endpoint: asks a model server, through the path its users take, whether it really answers.

Ready means three things in this order: it refuses a caller without the key, it lists the right model, and it
completes one token. A provider's "running" means none of them.
"""

from collections.abc import Mapping
from typing import Any

import requests

from llmpod.model import Health, Instance, Phase

_MESSAGES = [{"role": "user", "content": "ping"}]
_QUESTIONS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": _MESSAGES, "max_tokens": 1}),
    ("/v1/completions", {"prompt": "ping", "max_tokens": 1}),  # models without a chat template
    ("/v1/embeddings", {"input": "ping"}),  # embedding models
)


class HttpProber:
    """Asks model servers over HTTP.

    Args:
        quick_seconds: limit of one small request.
        answer_seconds: limit of the one-token completion (the first one may compile kernels).
    """

    def __init__(self, *, quick_seconds: float = 5.0, answer_seconds: float = 30.0) -> None:
        self._quick = quick_seconds
        self._answer = answer_seconds
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
        if bare.status_code == 200:
            return Health(Phase.LOADING, "it answers without its key", open_to_all=True)
        if bare.status_code != 401:
            return Health(Phase.BOOTING, f"HTTP {bare.status_code} instead of 401")
        return self._model(seen.base_url, api_key, served_name, was_ready=was_ready)

    def _model(self, base_url: str, api_key: str, served_name: str, *, was_ready: bool) -> Health:
        listing = self._get(f"{base_url}/v1/models", api_key)
        if isinstance(listing, str):
            return Health(Phase.LOADING, listing)
        if listing.status_code != 200:
            return Health(Phase.LOADING, f"/v1/models answers {listing.status_code}")
        names = _names(listing)
        if served_name not in names:
            return Health(Phase.LOADING, f"it serves {', '.join(names) or 'nothing'}, not {served_name}")
        return Health(Phase.READY) if was_ready else self._complete(base_url, api_key, served_name)

    def _complete(self, base_url: str, api_key: str, served_name: str) -> Health:
        detail = ""
        for path, question in _QUESTIONS:
            try:
                answer = self._session.post(
                    base_url + path,
                    json={"model": served_name, **question},
                    headers={"Authorization": f"Bearer {api_key}"},
                    timeout=(self._quick, self._answer),
                    allow_redirects=False,
                )
            except requests.RequestException as e:
                return Health(Phase.LOADING, f"no completion yet ({type(e).__name__})")
            if answer.status_code == 200:
                return Health(Phase.READY)
            detail = detail or f"{path} answers {answer.status_code}: {answer.text[:160]}"
            if answer.status_code not in (400, 404, 405, 422):
                break
        return Health(Phase.LOADING, detail)

    def _get(self, url: str, api_key: str | None) -> requests.Response | str:
        """The answer, or in words why there is none."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            return self._session.get(url, headers=headers, timeout=self._quick, allow_redirects=False)
        except requests.RequestException as e:
            return f"the server does not answer yet ({type(e).__name__})"


def _names(listing: requests.Response) -> list[str]:
    try:
        data = listing.json()["data"]
        return [str(item["id"]) for item in data]
    except (ValueError, KeyError, TypeError):
        return []
