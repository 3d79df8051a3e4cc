"""Not a choice of files: brings those of a model from the hub into the cache, several at once, each byte once.

What is cut, stalls or is refused for a moment is asked for again, from where it stopped, and from the hub's own
address on, since those of its CDN are signed for minutes. A file counts when its bytes have the digest that the hub
told beforehand.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock, Thread

import requests

from llmpod.backends.hub_cache import HubCache, Incomplete
from llmpod.backends.hub_files import RepoFile, Snapshot
from llmpod.backends.hub_http import HubHttp, quoted
from llmpod.errors import Busy, LlmpodError, ProviderUnavailable, StateError

AT_ONCE = 4
ATTEMPTS = 6  # in a row that bring nothing; with the pauses between them about a minute
SILENCE_SECONDS = 30.0
_LONGEST_PAUSE = 300.0
_PIECE = 2**20
_LEAVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How much trouble a download bears.

    Args:
        silence_seconds: without a byte, before it is asked for again.
        first_pause_seconds: before the second attempt; doubles each time.
    """

    silence_seconds: float = SILENCE_SECONDS
    first_pause_seconds: float = 1.0


class Download:
    """One model on its way.

    Args:
        http: the hub.
        cache: where it goes.
        whole: the commit.
        files: those that are wanted of it.
        patience: see there.
    """

    def __init__(
        self,
        http: HubHttp,
        cache: HubCache,
        whole: Snapshot,
        *,
        files: Sequence[RepoFile],
        patience: Patience | None = None,
    ) -> None:
        self._http = http
        self._cache = cache
        self._whole = whole
        self._left = sorted(files, key=lambda file: file.size)  # the largest goes first, from the end
        self._patience = patience or Patience()
        self._stop = Event()
        self._lock = Lock()
        self._error: LlmpodError | None = None
        self._there = {file.digest: self._at_first(file) for file in files}
        self.total = sum({file.digest: file.size for file in files}.values())
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(min(AT_ONCE, len(files)))]

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return sum(tuple(self._there.values()))

    @property
    def needed(self) -> int:
        """Bytes that the disk must still have room for."""
        return self.total - self.done

    def run(self, tell: Callable[[], None], every: float = 0.25) -> None:
        """Fetch all.

        Args:
            tell: called again and again, for who shows how far it is.
            every: seconds between two of those.

        Raises:
            LlmpodError: it cannot be had, or not kept; what has come stays for the next time.
            KeyboardInterrupt: likewise.
        """
        for thread in self._threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in self._threads):
                for thread in self._threads:
                    thread.join(every / len(self._threads))
                tell()
        finally:
            self._stop.set()
            for thread in self._threads:  # one that waits for a silent server ends with the program
                thread.join(_LEAVE_SECONDS)
        if self._error is not None:
            raise self._error

    def _at_first(self, file: RepoFile) -> int:
        return file.size if self._cache.has(file) else self._cache.incomplete_bytes(file)

    # --- one thread
    def _work(self) -> None:
        while (file := self._next()) is not None:
            try:
                self._bring(file)
            except LlmpodError as e:
                self._fail(e)
            except OSError as e:
                self._fail(
                    StateError(f"Cannot write {file.name} into the cache: {e.strerror or type(e).__name__}.")
                )

    def _next(self) -> RepoFile | None:
        with self._lock:
            return self._left.pop() if self._left and not self._stop.is_set() else None

    def _fail(self, error: LlmpodError) -> None:
        """The first error is the one to tell; the others are stopped by it."""
        with self._lock:
            self._error = self._error or error
        self._stop.set()

    def _bring(self, file: RepoFile) -> None:
        with self._cache.locked(file, self._stop):
            if not self._cache.has(file):  # or another program has brought it meanwhile
                with self._cache.incomplete(file) as incomplete:
                    self._fill(file, incomplete)
                    incomplete.flush()
                self._cache.keep(file)
        self._there[file.digest] = file.size
        self._cache.link(self._whole, file)

    def _fill(self, file: RepoFile, incomplete: Incomplete) -> None:
        """Raises LlmpodError: after too many attempts that brought nothing, or twice the wrong bytes."""
        failures = wrong = 0
        while True:
            before = incomplete.size
            try:
                if not incomplete.is_whole:
                    self._attempt(file, incomplete)
            except ProviderUnavailable as e:
                failures = 0 if incomplete.size > before else failures + 1
                if failures == ATTEMPTS:
                    raise
                self._pause(e.retry_after or self._patience.first_pause_seconds * 2 ** max(failures - 1, 0))
                continue
            if incomplete.is_right():
                return
            self._restart(file, incomplete)
            wrong += 1
            if wrong == 2:
                raise ProviderUnavailable(
                    f"{self._http.host} sends bytes for {file.name} that are not the file's."
                )

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(min(seconds, _LONGEST_PAUSE)):
            raise Busy("The download was stopped.")

    def _restart(self, file: RepoFile, incomplete: Incomplete) -> None:
        incomplete.restart()
        self._there[file.digest] = 0

    def _attempt(self, file: RepoFile, incomplete: Incomplete) -> None:
        """Raises ProviderUnavailable: it did not come to its end."""
        path = f"/{quoted(self._whole.id)}/resolve/{self._whole.commit}/{quoted(file.name)}"
        headers = {"Range": f"bytes={incomplete.size}-"} if incomplete.size else {}
        within = self._patience.silence_seconds
        with self._http.opened(path, within=lambda: within, headers=headers) as (answer, response):
            if answer.status == 200 and incomplete.size:
                self._restart(file, incomplete)  # who knows no ranges sends all of it
            elif answer.status == 206 and not _continues(answer.headers.get("Content-Range", ""), incomplete):
                raise ProviderUnavailable(f"{self._http.host} sent another part of {file.name}.")
            elif answer.status not in (200, 206):
                self._http.refuse(answer, self._whole.id, lambda: within)
            self._read(file, incomplete, response)
        if not incomplete.is_whole:
            raise ProviderUnavailable(
                f"{file.name} broke off after {incomplete.size} of {file.size} bytes, again and again."
            )

    def _read(self, file: RepoFile, incomplete: Incomplete, response: requests.Response) -> None:
        while piece := response.raw.read1(min(_PIECE, file.size - incomplete.size + 1)):
            if self._stop.is_set():
                raise Busy("The download was stopped.")
            if incomplete.size + len(piece) > file.size:
                self._restart(file, incomplete)
                raise ProviderUnavailable(f"{self._http.host} sent more than {file.name} is long.")
            incomplete.write(piece)
            self._there[file.digest] = incomplete.size


def _continues(content_range: str, incomplete: Incomplete) -> bool:
    found = re.match(r"bytes (\d+)-", content_range)
    return found is not None and int(found[1]) == incomplete.size
