"""Not what is asked: a connection to the Hugging Face hub, which tells no secrets and follows few redirects.

The token goes to the hub's own origin only: its redirects to a CDN are followed without it, and none leads from https
to http. What the hub refuses becomes an error that says what to do.
"""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3.exceptions

from llmpod import __version__
from llmpod.backends.hub_texts import Unmeasured
from llmpod.errors import BadCredentials, BadSpec, ProviderError, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.text import one_line
from llmpod.web import Session

PAGE_BYTES = 16 * 2**20  # the listing of a repository with thousands of files
_REDIRECTS = 5
_LONGEST_WAIT = 3600.0
Within = Callable[[], float]
"""The seconds that one step may still take. Raises ProviderUnavailable: none are left."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``own``: from the hub itself, not from where it redirects to."""

    status: int
    headers: Mapping[str, str]
    own: bool
    body: bytes = field(default=b"", repr=False)


class HubHttp:
    """A connection to the hub; may be used by several threads.

    Args:
        url: ``https://huggingface.co``, a mirror, or the simulator's.
        token: ``HF_TOKEN`` for gated and private models, or None.
    """

    def __init__(self, url: str, token: Secret | None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._session = Session()
        self._session.headers.update({"User-Agent": f"llmpod/{__version__}", "Accept-Encoding": "identity"})

    def close(self) -> None:
        self._session.close()

    @property
    def host(self) -> str:
        return urlsplit(self._url).netloc

    def fetch(self, path: str, *, limit: int, within: Within, span: tuple[int, int] | None = None) -> Answer:
        """An answer with at most one byte more than ``limit`` of its body, which shows that there is more.

        Raises:
            ProviderUnavailable: there is none in time.
        """
        headers = {"Range": f"bytes={span[0]}-{span[1]}"} if span else {}
        with self.opened(path, within=within, headers=headers) as (answer, response):
            body = b""
            while len(body) <= limit and (piece := response.raw.read1(min(65536, limit + 1 - len(body)))):
                body += piece
                within()
            return Answer(answer.status, answer.headers, answer.own, body)

    @contextmanager
    def opened(
        self, path: str, *, within: Within, headers: Mapping[str, str]
    ) -> Iterator[tuple[Answer, requests.Response]]:
        """An answer whose body is still to be read, from ``response.raw``; errors of that are translated, too.

        Raises:
            ProviderUnavailable: there is none in time, it redirects to where nobody follows, or breaks off.
        """
        url = self._url + path
        for _ in range(_REDIRECTS):
            try:
                with self._once(url, headers, within()) as response:
                    target = response.headers.get("Location")
                    if response.status_code not in (301, 302, 303, 307, 308) or not target:
                        yield Answer(response.status_code, response.headers, self._is_own(url)), response
                        return
            except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
                raise ProviderUnavailable(
                    f"{urlsplit(url).netloc} cannot be reached ({type(e).__name__}).",
                    hint="Is this machine on the network? Then try it again: what was fetched is kept.",
                ) from None
            url = self._target(url, target)
        raise ProviderUnavailable(f"{self.host} redirects in circles.")

    def _once(self, url: str, headers: Mapping[str, str], within: float) -> requests.Response:
        own = self._token is not None and self._is_own(url)
        secret = {"Authorization": f"Bearer {self._token.reveal()}"} if self._token and own else {}
        return self._session.get(
            url, headers={**headers, **secret}, timeout=(within, within), allow_redirects=False, stream=True
        )

    def _is_own(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self._url)[:2]

    def _target(self, url: str, location: str) -> str:
        """Where a redirect leads. Raises ProviderUnavailable: to no address, or from https to http."""
        try:
            target = urljoin(url, location)
            if urlsplit(target).scheme == urlsplit(self._url).scheme:
                return target
        except ValueError:  # "http://[": half an IPv6 address
            pass
        raise ProviderUnavailable(
            f"{self.host} redirects to {one_line(location, 80)}, which is not followed."
        )

    # --- refusals
    def refuse(self, answer: Answer, repo_id: str, within: Within) -> NoReturn:
        """Say what an answer without success means.

        The hub tells strangers of a private model what it tells them of one that does not exist: 401. What another
        host refuses (an address that was signed for minutes) says nothing of the model.

        Raises:
            BadSpec, BadCredentials, ProviderUnavailable: always one of them.
        """
        status, said = answer.status, answer.headers.get("X-Error-Code", "")
        wait = answer.headers.get("Retry-After", "")
        retry = min(float(wait), _LONGEST_WAIT) if wait.isdecimal() else None
        if not answer.own:
            raise ProviderUnavailable(f"Where {self.host} sends us to answered {status}.", retry_after=retry)
        self._refuse_credentials(status, said, repo_id)
        if said == "RevisionNotFound":
            raise BadSpec(f"{repo_id} on {self.host} has no such revision.", hint="Correct `model`.")
        if said == "EntryNotFound":
            raise Unmeasured(f"{repo_id} on {self.host} has no config.json.", hint="Name the GPU instead.")
        if status in (401, 403, 404):
            near = self._nearest(repo_id, within)
            hint = f"Nearest: {', '.join(near)}." if near else "Look it up at huggingface.co/models."
            hint += "" if self._token else " If it is private, set HF_TOKEN."
            raise BadSpec(f"{self.host} has no model {repo_id}.", hint=hint)
        raise ProviderUnavailable(f"{self.host} answered {status}.", retry_after=retry)

    def _refuse_credentials(self, status: int, said: str, repo_id: str) -> None:
        """Raises BadCredentials: the token, or its absence, is what is wrong."""
        if said == "GatedRepo" or (status == 403 and self._token):
            token = "the account of your token" if self._token else "HF_TOKEN and its account"
            hint = f"Accept its licence with {token} at {self._url}/{repo_id} ."
            raise BadCredentials(f"{repo_id} is gated on {self.host}.", hint=hint)
        if said == "" and status == 401 and self._token:
            raise BadCredentials(f"{self.host} refused the token.", hint="Make a new one there.")

    def _nearest(self, repo_id: str, within: Within) -> list[str]:
        """Models of the same owner with a similar name; none when the hub does not answer that either."""
        owner = quote(repo_id.rpartition("/")[0], safe="")
        path = f"/api/models?author={owner}&limit=500"
        try:
            body = self.fetch(path, limit=PAGE_BYTES, within=within).body
            names = [one_line(str(item["id"]), 100) for item in json.loads(body)]
        except (ProviderError, ValueError, TypeError, KeyError, RecursionError):
            return []
        return difflib.get_close_matches(repo_id, names, n=3, cutoff=0.4)


def quoted(text: str, *, safe: str = "/") -> str:
    """For a path; JSON can carry lone surrogates, which UTF-8 cannot."""
    return quote(text, safe=safe, errors="replace")
