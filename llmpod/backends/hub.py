"""Not a downloader: asks the Hugging Face hub how large a model is and how it is built, in at most four requests.

Neither weights nor code are fetched: of a weights file only its header is read (safetensors: eight bytes of length,
then JSON), by an HTTP Range, and the connection is dropped where a server ignores that. Everything has a limit in
bytes and one in time.
"""

import fnmatch
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from llmpod.backends.hub_http import PAGE_BYTES, HubHttp, quoted
from llmpod.backends.hub_texts import Unmeasured, count, document, tensors
from llmpod.bounded import bounded
from llmpod.errors import BadSpec, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.text import one_line

T = TypeVar("T")
TOTAL_SECONDS = 20.0
STEP_SECONDS = 8.0
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
        return f"/{quoted(self.id)}/resolve/{quoted(self.revision, safe='')}/{quoted(name)}"


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
        self.http = HubHttp(url, token)
        self._total = total_seconds
        self._clock = clock
        self._until = 0.0

    def close(self) -> None:
        self.http.close()

    @property
    def host(self) -> str:
        return self.http.host

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
        return self._in_time(repo_id, partial(self._look_up, repo_id, revision))

    def page(self, repo_id: str, revision: str = "") -> dict[str, Any]:
        """What the hub's API says of a revision, its files with their sizes and digests included.

        Raises:
            BadSpec, BadCredentials, ProviderUnavailable: see :meth:`look_up`.
        """
        return self._in_time(repo_id, partial(self._page, repo_id, revision))

    def _in_time(self, repo_id: str, ask: Callable[[], T]) -> T:
        if {".", ".."} & set(repo_id.split("/")):
            raise BadSpec(f"{repo_id} is no Hugging Face id.")
        self._until = self._clock() + self._total
        try:
            return bounded(ask, self._total)
        except TimeoutError:
            raise self._too_late() from None

    def _look_up(self, repo_id: str, revision: str) -> Repo:
        listing = self._listing(repo_id, revision)
        config = document(self._get(listing.path("config.json"), repo_id, limit=_CONFIG_BYTES))
        size, floats = self._weights(listing, whole=config.get("torch_dtype") == "float32")
        stored = sum(n for name, n in listing.sizes.items() if name.endswith(".safetensors"))
        return Repo(repo_id, listing.revision, config, size, floats, max(stored, size))

    def _page(self, repo_id: str, revision: str) -> dict[str, Any]:
        tail = f"/revision/{quote(revision, safe='')}" if revision else ""
        return document(self._get(f"/api/models/{quoted(repo_id)}{tail}?blobs=true", repo_id))

    # --- weights
    def _listing(self, repo_id: str, revision: str) -> _Listing:
        page = self._page(repo_id, revision)
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
        self, path: str, repo_id: str, *, limit: int = PAGE_BYTES, span: tuple[int, int] | None = None
    ) -> bytes:
        """The body, whole; with ``span`` that part of it, also from a server that sends more."""
        answer = self.http.fetch(path, limit=limit, within=self._step, span=span)
        if answer.status not in (200, 206):
            self.http.refuse(answer, repo_id, self._step)
        if len(answer.body) > limit and span is None:
            raise ProviderUnavailable(f"{self.host} sent more than {limit} bytes for {repo_id}.")
        return answer.body[:limit]

    def _step(self) -> float:
        left = self._until - self._clock()
        if left <= 0:
            raise self._too_late()
        return min(left, STEP_SECONDS)

    def _too_late(self) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.host} did not answer within {self._total:g} s.")
