"""Not a limit: counts the tokens of one answer while it passes, and what it costs."""

import re
from typing import Final, NamedTuple

from llmpod.proxy.costs import Bill
from llmpod.proxy.route import Destination

BYTES_PER_TOKEN: Final = 4  # of English text, where a server does not say how many it was
EVENT_BYTES: Final = 200  # of an event around its text (166 to 259 in recordings of three servers)
TAIL: Final = 4096  # bytes at the end of an answer in which its usage stands
# as chats, embeddings and completions have it, and as Messages and Responses do
_SAID: Final = re.compile(rb'"(total|prompt|completion|input|output)_tokens"\s*:\s*(\d{1,12})')


class Tokens(NamedTuple):
    """How many a question and its answer have."""

    prompt: int
    completion: int

    @property
    def total(self) -> int:
        return self.prompt + self.completion


class Meter:
    """Counts one answer.

    Args:
        bill: what it costs; None where that does not count.

    Attributes:
        begun: a model server was asked; before that nothing was taken.
        model_key: whose limit counts it as well; empty: none.
    """

    __slots__ = ("_bytes", "_events", "_said", "_tail", "begun", "bill", "model_key")

    def __init__(self, bill: Bill | None = None) -> None:
        self.bill = bill
        self.begun = False
        self.model_key = ""
        self._tail = b""
        self._bytes = 0
        self._events = 0
        self._said: dict[bytes, int] = {}

    def begin(self, destination: Destination, model: str) -> None:
        """A model server is asked from now on. Raises BudgetSpent."""
        if self.bill is not None:
            self.bill.begin(destination, model)
        self.begun = True

    def hear(self, counts: bytes) -> None:
        """What the server said of it, and the client is not given."""
        self._said |= {name: int(number) for name, number in _SAID.findall(counts[-TAIL:])}

    def see(self, chunk: bytes) -> None:
        """The next bytes that the client is given."""
        self._bytes += len(chunk)
        self._events += chunk.count(b"\n\n") + chunk.count(b"\n\r\n")
        self._tail = (self._tail + chunk)[-TAIL:] if len(chunk) < TAIL else chunk[-TAIL:]

    def tokens(self, asked: int) -> Tokens:
        """As the server said, else about as many as that much text has: in a stream, one an event or more.

        Args:
            asked: bytes of the request.
        """
        if not self._said:
            self.hear(self._tail)
        said = self._said
        total = said.get(b"total")
        prompt, completion = _first(said, b"prompt", b"input"), _first(said, b"completion", b"output")
        if total is not None:
            prompt = max(0, total - (completion or 0)) if prompt is None else min(prompt, total)
            return Tokens(prompt, total - prompt)
        if prompt is None:
            prompt = asked // BYTES_PER_TOKEN
        if completion is None:
            text = self._bytes - self._events * EVENT_BYTES
            completion = max(self._events, text // BYTES_PER_TOKEN)
        return Tokens(prompt, completion)


def _first(said: dict[bytes, int], *names: bytes) -> int | None:
    return next((said[name] for name in names if name in said), None)
