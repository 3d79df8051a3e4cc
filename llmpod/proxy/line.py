"""Not ASGI: what ASGI has no word for, between the edge and the application of one request."""

from collections.abc import Callable
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LINE: Final = "llmpod.line"  # the ASGI extension under which an application finds its :class:`Line`


class Line:
    """One request's line to its client, for what ASGI has no word for: hearing of a hang-up, and hanging up."""

    __slots__ = ("_cycle", "_listener", "gone")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._listener: Callable[[], object] | None = None
        self.gone = False

    def when_gone(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` when the client leaves; at once when it has left."""
        self._listener = listener
        if self.gone:
            listener()

    def hear_gone(self) -> None:
        self.gone = True
        if self._listener is not None:
            self._listener()

    def last(self) -> None:
        """Close the connection after this answer."""
        self._cycle.keep_alive = False

    @property
    def unread(self) -> bool:
        """The request's body has not come to its end."""
        return self._cycle.more_body

    def forget_request(self) -> bool:
        """Its body will never be whole: tell the application, unless it has begun to answer; True when told."""
        if not self._cycle.more_body or self._cycle.response_started:
            return False
        self._cycle.disconnected = True
        self._cycle.message_event.set()
        return True

    def break_off(self) -> None:
        """Close after what was written, without the end that the framing promised: the client sees a cut."""
        self._listener = None
        self._cycle.disconnected = True
        self._cycle.transport.close()
