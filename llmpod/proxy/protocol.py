"""Not an application: the HTTP edge. Order, the life of a connection, and no task for what needs none.

Requests are read whole (``intake.py``); then, in their order and one at a time, ``/v1/*`` goes to the desk (hits
from memory: one buffer is written and done) or to the relay, and everything else to the ASGI application.
"""

import asyncio
from collections import deque
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_remote_addr
from uvicorn.server import ServerState

from llmpod.errors import LlmpodError
from llmpod.proxy.answer import Answer
from llmpod.proxy.ask import Ask
from llmpod.proxy.cycle import Stage
from llmpod.proxy.desk import Desk
from llmpod.proxy.headers import Headers
from llmpod.proxy.intake import Intake
from llmpod.proxy.relay import Relay
from llmpod.proxy.replies import refusal
from llmpod.proxy.route import is_model_path

LINGER_SECONDS: Final = (
    1.0  # after a refusal: time to read it before the close discards unread input (RFC 9112 9.6)
)
LINGER_BYTES: Final = 2**20


class EdgeProtocol(Intake):
    """One connection of a client, for uvicorn's server; desk and relay come from the lifespan's state."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._desk: Desk = app_state["desk"]
        self._relay: Relay = app_state["relay"]
        super().__init__(
            max_header_bytes=self._desk.max_header_bytes,
            max_body_bytes=self._desk.max_body_bytes,
            loop=_loop or asyncio.get_running_loop(),
        )
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._waiting: deque[Ask] = deque()
        self._current: Answer | RequestResponseCycle | None = None
        self._serving = False
        self._closing = False  # told to stop: after the answers that are owed
        self._ignored = 0

    # --- connection -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it names its own classes
        self._transport = transport
        self._flow = FlowControl(transport)
        self._stage = Stage(self._config, self._server_state, self._app_state, transport, self._flow)
        client = get_remote_addr(transport)
        self._client = client[0] if client else ""
        self._watch(self._desk.keep_alive_seconds)

    def connection_lost(self, _: Exception | None) -> None:
        self._server_state.connections.discard(self)
        self._timer.cancel()
        self._deaf = True
        self._waiting.clear()
        current = self._current
        if isinstance(current, Answer):
            current.gone()
        elif current is not None:
            current.disconnected = True
            current.message_event.set()
        self._flow.resume_writing()

    def pause_writing(self) -> None:
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        if isinstance(self._current, Answer) and self._current.when_clear is not None:
            self._current.when_clear()

    def shutdown(self) -> None:
        """The server stops: close when idle, else after the answers that are owed."""
        self._closing = True
        if isinstance(self._current, RequestResponseCycle) and not self._waiting:
            self._current.keep_alive = False
        elif self._current is None:
            self._transport.close()

    def interrupt(self) -> None:
        """The grace is over. The application's answers are tasks of the server, which cancels them itself."""
        self._waiting.clear()
        if isinstance(self._current, Answer):
            self._relay.interrupt(self._current)

    def _watch(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        """One timer a connection, not one a request: it looks when it fires how long nothing happened."""
        limit = self._desk.keep_alive_seconds
        quiet = self._loop.time() - self._active_at
        if self._current is not None:
            self._watch(limit)
        elif quiet >= limit:
            self._transport.close()
        else:
            self._watch(limit - quiet)

    # --- requests ---------------------------------------------------------------------------------------------
    def take(self, ask: Ask) -> None:
        self._waiting.append(ask)
        self._go_on()

    def refuse(self, error: LlmpodError, cause: BaseException | None) -> None:
        """Say no and hang up when the answers that are owed have been given."""
        self._desk.refused(error, cause)
        if self._current is None:
            self._say_no(error)

    def expected(self) -> None:
        if self._current is None:
            self._go_on()

    def _say_no(self, error: LlmpodError) -> None:
        self._transport.write(refusal(error))
        self._loop.call_later(LINGER_SECONDS, self._transport.close)

    def dropped(self, size: int) -> None:
        """What comes after a refusal is read for a while, so that the refusal can be read, but not for ever."""
        self._ignored += size
        if self._ignored > LINGER_BYTES:
            self._flow.pause_reading()

    # --- answers ----------------------------------------------------------------------------------------------
    def _go_on(self) -> None:
        """Answer what waits, as far as that is possible at once; then hear of more."""
        if self._serving:
            return
        self._serving = True
        try:
            while self._waiting and self._current is None and not self._transport.is_closing():
                self._serve(self._waiting.popleft())
        finally:
            self._serving = False
        if self._waiting:
            self._flow.pause_reading()
        elif self._current is None and self._refused is not None:
            self._say_no(self._refused)
        elif self._current is None:
            if self._expects:
                self._expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._flow.resume_reading()

    def _serve(self, ask: Ask) -> None:
        if not ask.target.startswith(b"/v1/") and not is_model_path(ask.path):
            self._current = self._stage.run(ask, lambda: self.answered(keep=ask.keep))
            return
        plain = ask.keep and ask.method == "POST" and not self._flow.write_paused and not self._closing
        hit = self._desk.at_once(ask) if plain else None
        if hit is not None:
            self._transport.write(hit)
            self.answered(keep=True)
            return
        self._current = answer = Answer(self, ask, self._desk.journal)
        self._relay.serve(ask, answer)

    # --- for answers (see answer.Wire) ------------------------------------------------------------------------
    @property
    def congested(self) -> bool:
        return self._flow.write_paused

    @property
    def last(self) -> bool:
        return self._closing and not self._waiting

    @property
    def fields(self) -> Headers:
        return self._server_state.default_headers

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def answered(self, *, keep: bool) -> None:
        """An answer is over; the connection goes on if it can and may."""
        self._current = None
        self._server_state.total_requests += 1
        self._active_at = self._loop.time()
        if keep and not self.last:
            self._go_on()
        else:
            self._deaf = True
            self._transport.close()
