"""Not a downloader: asks the Hugging Face hub how large a model is and how it is built, in at most four requests.

Neither weights nor code are fetched: of a weights file only its header is read (safetensors: eight bytes of length,
then JSON), by an HTTP Range, and the connection is dropped where a server ignores that. The token goes to the hub's
own origin only: its redirects to a CDN are followed without it. Everything has a limit in bytes and one in time.
"""

import difflib
import fnmatch
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn
from urllib.parse import quote, urljoin, urlsplit

import requests
import urllib3.exceptions

from llmpod import __version__
from llmpod.backends.hub_texts import Unmeasured, count, document, tensors
from llmpod.bounded import bounded
from llmpod.errors import BadCredentials, BadSpec, ProviderError, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.text import one_line
from llmpod.web import Session

TOTAL_SECONDS = 20.0
STEP_SECONDS = 8.0
_REDIRECTS = 5
_LONGEST_WAIT = 3600.0
_PAGE_BYTES = 16 * 2**20  # the listing of a repository with thousands of files
_CONFIG_BYTES = 2**20
_INDEX_BYTES = 32 * 2**20
_FIRST_BYTES = 64 * 2**10  # most headers of a single file
_HEADER_BYTES = 32 * 2**20
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True, slots=True)
class Repo:
    """One revision of a model on the hub.

    Args:
        id: ``org/name``.
        revision: the commit that all of this was read from.
        config: its ``config.json``.
        weights_bytes: size of the tensors.
        float32_bytes: how much of that is in 32-bit floats, which vLLM halves when it loads them.
        stored_bytes: size of all files of weights that a pod may download; at least the former.
    """

    id: str
    revision: str
    config: Mapping[str, Any]
    weights_bytes: int
    float32_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class _Listing:
    id: str
    revision: str
    sizes: Mapping[str, int]
    parameters: Mapping[str, int]

    def path(self, name: str) -> str:
        return f"/{_quoted(self.id)}/resolve/{_quoted(self.revision, safe='')}/{_quoted(name)}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class Hub:
    """A connection to the hub.

    Args:
        url: ``https://huggingface.co``, a mirror, or the simulator's.
        token: ``HF_TOKEN`` for gated and private models, or None.
        total_seconds: how long one look-up may take as a whole.
        clock: seconds that only move forward.
    """

    def __init__(
        self,
        url: str,
        token: Secret | None,
        *,
        total_seconds: float = TOTAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._total = total_seconds
        self._clock = clock
        self._until = 0.0
        self._session = Session()
        self._session.headers.update({"User-Agent": f"llmpod/{__version__}", "Accept-Encoding": "identity"})

    def close(self) -> None:
        self._session.close()

    @property
    def host(self) -> str:
        return urlsplit(self._url).netloc

    def look_up(self, repo_id: str, revision: str = "") -> Repo:
        """What the hub says of a model.

        Args:
            repo_id: ``org/name``.
            revision: branch, tag or commit; the main branch when empty.

        Raises:
            BadSpec: there is no such model or revision; Unmeasured: it has no weights that vLLM loads.
            BadCredentials: it is gated or private, and the token does not open it.
            ProviderUnavailable: no answer that is understood.
        """
        if {".", ".."} & set(repo_id.split("/")):
            raise BadSpec(f"{repo_id} is no Hugging Face id.")
        self._until = self._clock() + self._total
        try:
            return bounded(partial(self._look_up, repo_id, revision), self._total)
        except TimeoutError:
            raise self._too_late() from None

    def _look_up(self, repo_id: str, revision: str) -> Repo:
        listing = self._listing(repo_id, revision)
        config = document(self._get(listing.path("config.json"), repo_id, limit=_CONFIG_BYTES))
        size, floats = self._weights(listing, whole=config.get("torch_dtype") == "float32")
        stored = sum(n for name, n in listing.sizes.items() if name.endswith(".safetensors"))
        return Repo(repo_id, listing.revision, config, size, floats, max(stored, size))

    # --- weights
    def _listing(self, repo_id: str, revision: str) -> _Listing:
        tail = f"/revision/{quote(revision, safe='')}" if revision else ""
        page = document(self._get(f"/api/models/{_quoted(repo_id)}{tail}?blobs=true", repo_id))
        siblings = page.get("siblings")
        files = [f for f in siblings if isinstance(f, dict)] if isinstance(siblings, list) else []
        sizes = {str(f.get("rfilename")): count(f.get("size")) for f in files}
        tensors = page.get("safetensors")
        counts = tensors.get("parameters") if isinstance(tensors, dict) else None
        return _Listing(
            id=repo_id,
            revision=one_line(str(page.get("sha") or revision or "main"), 100),
            sizes={
                name: size for name, size in sizes.items() if "/" not in name
            },  # `original/` is not loaded
            parameters={k: count(v) for k, v in counts.items()} if isinstance(counts, dict) else {},
        )

    def _weights(self, listing: _Listing, *, whole: bool) -> tuple[int, int]:
        """Bytes of all tensors, and of those in 32-bit floats: all when ``whole`` and no file tells it better."""
        names = listing.sizes
        if _INDEX in names:
            return self._sharded(listing, whole=whole)
        single = _SINGLE if _SINGLE in names else next((n for n in names if n.endswith(".safetensors")), "")
        if single:
            return tensors(self._header(listing.path(single), listing.id))
        pickled = sum(names[name] for name in fnmatch.filter(names, "pytorch_model*.bin"))
        if pickled:
            return pickled, pickled * whole
        raise Unmeasured(f"{listing.id} has no weights as safetensors.", hint="Name the GPU instead.")

    def _sharded(self, listing: _Listing, *, whole: bool) -> tuple[int, int]:
        """By the index; where that does not tell the size, by its files, whose headers are a thousandth of them."""
        index = document(self._get(listing.path(_INDEX), listing.id, limit=_INDEX_BYTES))
        shards, metadata = index.get("weight_map"), index.get("metadata")
        files = {str(name) for name in shards.values()} if isinstance(shards, dict) else set()
        size = count(metadata.get("total_size")) if isinstance(metadata, dict) else 0
        if not (size := size or sum(listing.sizes.get(name, 0) for name in files)):
            raise ProviderUnavailable(f"{self.host} does not tell how large {listing.id} is.")
        if listing.parameters:
            return size, min(size, 4 * listing.parameters.get("F32", 0))
        return size, size * whole

    def _header(self, path: str, repo_id: str) -> Mapping[str, Any]:
        """The header of one safetensors file."""
        start = self._get(path, repo_id, limit=_FIRST_BYTES, span=(0, _FIRST_BYTES - 1))
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or not 0 < length <= _HEADER_BYTES:
            raise ProviderUnavailable(f"{self.host} sent no safetensors header for {repo_id}.")
        text = start[8 : 8 + length]
        if len(text) < length:
            text = self._get(path, repo_id, limit=8 + length, span=(0, 7 + length))[8:]
        return document(text)

    # --- HTTP
    def _get(
        self, path: str, repo_id: str, *, limit: int = _PAGE_BYTES, span: tuple[int, int] | None = None
    ) -> bytes:
        """The body, whole; with ``span`` that part of it, also from a server that sends more."""
        answer = self._follow(path, limit, span)
        if answer.status not in (200, 206):
            self._refuse(answer, repo_id)
        if len(answer.body) > limit and span is None:
            raise ProviderUnavailable(f"{self.host} sent more than {limit} bytes for {repo_id}.")
        return answer.body[:limit]

    def _follow(self, path: str, limit: int, span: tuple[int, int] | None) -> _Answer:
        url = self._url + path
        for _ in range(_REDIRECTS):
            answer = self._once(url, limit, span)
            target = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not target:
                return answer
            url = self._target(url, target)
        raise ProviderUnavailable(f"{self.host} redirects in circles.")

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

    def _once(self, url: str, limit: int, span: tuple[int, int] | None) -> _Answer:
        own = urlsplit(url)[:2] == urlsplit(self._url)[:2]
        headers = {"Authorization": f"Bearer {self._token.reveal()}"} if self._token and own else {}
        if span:
            headers["Range"] = f"bytes={span[0]}-{span[1]}"
        within = min(self._time_left(), STEP_SECONDS)
        try:
            with self._session.get(
                url, headers=headers, timeout=(within, within), allow_redirects=False, stream=True
            ) as response:
                return _Answer(response.status_code, response.headers, self._read(response, limit))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            raise ProviderUnavailable(f"{self.host} cannot be reached ({type(e).__name__}).") from None

    def _read(self, response: requests.Response, limit: int) -> bytes:
        """At most one byte more than ``limit``, which shows that there is more."""
        body = b""
        while len(body) <= limit and (piece := response.raw.read1(min(65536, limit + 1 - len(body)))):
            body += piece
            self._time_left()
        return body

    def _time_left(self) -> float:
        left = self._until - self._clock()
        if left <= 0:
            raise self._too_late()
        return left

    def _too_late(self) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.host} did not answer within {self._total:g} s.")

    # --- refusals
    def _refuse(self, answer: _Answer, repo_id: str) -> NoReturn:
        """The hub tells strangers of a private model what it tells them of one that does not exist: 401."""
        status, said = answer.status, answer.headers.get("X-Error-Code", "")
        if said == "GatedRepo" or (status == 403 and self._token):
            token = "the account of your token" if self._token else "HF_TOKEN and its account"
            hint = f"Accept its licence with {token} at {self._url}/{repo_id} ."
            raise BadCredentials(f"{repo_id} is gated on {self.host}.", hint=hint)
        if said == "RevisionNotFound":
            raise BadSpec(f"{repo_id} on {self.host} has no such revision.", hint="Correct `model`.")
        if said == "EntryNotFound":
            raise Unmeasured(f"{repo_id} on {self.host} has no config.json.", hint="Name the GPU instead.")
        if said == "" and status == 401 and self._token:
            raise BadCredentials(f"{self.host} refused the token.", hint="Make a new one there.")
        if status in (401, 403, 404):
            near = self._nearest(repo_id)
            hint = f"Nearest: {', '.join(near)}." if near else "Look it up at huggingface.co/models."
            hint += "" if self._token else " If it is private, set HF_TOKEN."
            raise BadSpec(f"{self.host} has no model {repo_id}.", hint=hint)
        wait = answer.headers.get("Retry-After", "")
        retry = min(float(wait), _LONGEST_WAIT) if wait.isdecimal() else None
        raise ProviderUnavailable(f"{self.host} answered {status}.", retry_after=retry)

    def _nearest(self, repo_id: str) -> list[str]:
        """Models of the same owner with a similar name; none when the hub does not answer that either."""
        owner = quote(repo_id.rpartition("/")[0], safe="")
        try:
            answer = self._follow(f"/api/models?author={owner}&limit=500", _PAGE_BYTES, None)
            names = [one_line(str(item["id"]), 100) for item in json.loads(answer.body)]
        except (ProviderError, ValueError, TypeError, KeyError, RecursionError):
            return []
        return difflib.get_close_matches(repo_id, names, n=3, cutoff=0.4)


def _quoted(text: str, *, safe: str = "/") -> str:
    """For a path; JSON can carry lone surrogates, which UTF-8 cannot."""
    return quote(text, safe=safe, errors="replace")
