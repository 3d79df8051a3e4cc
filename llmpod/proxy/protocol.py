"""Not an application: the HTTP edge. Order, the life of a connection, and no task for what needs none.

Requests are read whole (``intake.py``); then, in their order and one at a time, ``/v1/*`` goes to the desk (hits
from memory: one buffer is written and done) or to the relay, and everything else to the ASGI application.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from llmpod.errors import LlmpodError, Overloaded
from llmpod.proxy.answer import LEFT, Answer
from llmpod.proxy.ask import OPEN, Ask, Leave
from llmpod.proxy.browser import preflight
from llmpod.proxy.cycle import Stage
from llmpod.proxy.gate import Visitor
from llmpod.proxy.headers import SANDBOX, Headers, lines
from llmpod.proxy.house import House
from llmpod.proxy.intake import Intake
from llmpod.proxy.peer import ends_of
from llmpod.proxy.replies import refusal, with_fields
from llmpod.proxy.room import no_room
from llmpod.proxy.route import is_model_path
from llmpod.proxy.slots import Place

LINGER_SECONDS: Final = (
    1.0  # after a refusal: time to read it before the close discards unread input (RFC 9112 9.6)
)
LINGER_BYTES: Final = 2**20
NO_LINGER: Final = struct.pack("ii", 1, 0)  # socket(7), SO_LINGER
OUTSIDE: Final = -1
FULL: Final = refusal(Overloaded("Too many connections are open.", retry_after=1))


class EdgeProtocol(Intake):
    """One connection of a client, for uvicorn's server; what it shares with the others comes from the lifespan."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._house: House = app_state["house"]
        desk = self._house.desk
        super().__init__(
            max_header_bytes=desk.max_header_bytes,
            max_body_bytes=desk.max_body_bytes,
            loop=_loop or asyncio.get_running_loop(),
        )
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._waiting: deque[Ask] = deque()
        self.current: Answer | RequestResponseCycle | None = None
        self._leave_now = OPEN  # of the request that is being answered
        self._serving = False
        self._closing = False  # told to stop: after the answers that are owed
        self._ignored = 0
        self._linger: asyncio.TimerHandle | None = None
        self._place: Place | None = None  # of the answer under way, unless it came from memory
        self._slot = OUTSIDE
        self.congested = False
        self._unsent = 0  # bytes that the client had not taken at the last look
        self._stalled_at = 0.0  # since when it takes none

    # --- connection -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._transport = transport
        self._flow = FlowControl(transport)
        self._visitor = Visitor(ends_of(transport), tls=transport.get_extra_info("ssl_object") is not None)
        self._client = self._visitor.ends.client
        if not self._house.door.enter(self._client):
            self._deaf = True
            self._hang_up(FULL)
            return
        self._slot = self._house.sweep.add(self)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # it names its own classes
        self._stage = Stage(self._config, self._server_state, self._app_state, transport, self._flow)

    def connection_lost(self, _: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        # both lead back here, the error by its trace: a connection is to be freed now, not when cycles are looked for
        del self._parser
        self._refused = None
        if self._slot == OUTSIDE:
            return
        self._house.door.leave(self._client)
        self._house.sweep.drop(self._slot, self)
        self._house.room.free(self)
        self._server_state.connections.discard(self)
        self._deaf = True
        self._waiting.clear()
        current = self.current
        if isinstance(current, Answer):
            current.gone()
        elif current is not None:
            current.disconnected = True
            current.message_event.set()
        self._flow.resume_writing()

    def pause_writing(self) -> None:
        self.congested = True
        self._flow.pause_writing()

    def resume_writing(self) -> None:
        self._stalled_at = 0.0
        self.congested = False
        self._flow.resume_writing()
        if isinstance(self.current, Answer) and self.current.when_clear is not None:
            self.current.when_clear()

    def shutdown(self) -> None:
        """The server stops: close when idle, else after the answers that are owed."""
        self._closing = True
        if isinstance(self.current, RequestResponseCycle) and not self._waiting:
            self.current.keep_alive = False
        elif self.current is None:
            self._transport.close()

    def interrupt(self) -> None:
        """The grace is over. The application's answers are tasks of the server, which cancels them itself."""
        self._waiting.clear()
        if isinstance(self.current, Answer):
            self._house.relay.interrupt(self.current)

    def look(self, now: float) -> None:
        """Close if the client takes too long with what it sends or takes; see :class:`~llmpod.proxy.sweep.Sweep`."""
        if self._stalls(now):
            self._cut()
            return
        if self.current is not None or self._refused is not None or self._transport.is_closing():
            return
        late = self.overdue(now, self._house.sweep.deadlines)
        if isinstance(late, LlmpodError):
            self._stop(late)
        elif late:
            self._transport.close()

    def _cut(self) -> None:
        """Hang up on a client that takes nothing, so that the kernel, too, forgets what it was sent (RST)."""
        if (sock := self._transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._transport.abort()

    def _stalls(self, now: float) -> bool:
        """Whether the client has taken nothing for too long of what waits for it."""
        unsent, before = self._transport.get_write_buffer_size(), self._unsent
        self._unsent = unsent
        if not unsent or unsent < before or not self._stalled_at:
            self._stalled_at = now if unsent else 0.0
        return bool(unsent) and now - self._stalled_at >= self._house.sweep.deadlines.stall

    # --- requests ---------------------------------------------------------------------------------------------
    def take(self, ask: Ask) -> None:
        if self._house.room.guests:
            self._house.room.arrived(self)
        self._waiting.append(ask)
        self._go_on()

    def admit(self, method: str, path: str, headers: Headers) -> Leave:
        return self._house.gate.admit(method, path, headers, self._visitor)

    def keeps(self, size: int) -> bool:
        return self._house.room.take(self, size)

    def crowded_out(self) -> None:
        """See :class:`~llmpod.proxy.room.Guest`."""
        self._stop(no_room())

    def refuse(self, error: LlmpodError, cause: BaseException | None) -> None:
        """Say no and hang up when the answers that are owed have been given."""
        self._house.desk.refused(error, cause)
        if self.current is None:
            self._house.room.free(self)
            self._say_no(error)

    def expected(self) -> None:
        if self.current is None:
            self._go_on()

    def _say_no(self, error: LlmpodError) -> None:
        self._hang_up(refusal(error))

    def _hang_up(self, last_words: bytes) -> None:
        """Say something, then nothing; what the client still sends is read for a while, so that it can be read."""
        self._transport.write(last_words)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger = self._loop.call_later(LINGER_SECONDS, self._transport.close)

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
            while self._waiting and self.current is None and not self._transport.is_closing():
                self._serve(self._waiting.popleft())
        finally:
            self._serving = False
        if self._waiting:
            self._flow.pause_reading()
        elif self.current is None and self._refused is not None:
            self._say_no(self._refused)
        elif self.current is None:
            if self._expects:
                self._expects = False
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._flow.resume_reading()

    def _serve(self, ask: Ask) -> None:
        self._leave_now = leave = ask.leave
        plain = ask.keep and ask.method == "POST" and not self.congested and not self._closing
        if not is_model_path(ask.path) and ask.method != "OPTIONS":
            ask.keep = ask.keep and not self.last
            self.current = self._stage.run(ask, lambda: self.answered(keep=ask.keep))
            return
        limiter = self._house.limiter
        if limiter.always or leave.key is not None:
            error = limiter.refusal(ask) if ask.method != "OPTIONS" else None
            if error is not None:
                self._begin(ask).fail(error)
                return
        hit = self._house.desk.at_once(ask) if plain else None
        if hit is not None:
            self._transport.write(with_fields(hit, leave.fields) if leave.fields else hit)
            self.answered(keep=True)
            return
        answer = self._begin(ask)
        if ask.method == "OPTIONS":
            answer.start(204, preflight(ask.headers, allowed=bool(leave.fields)))
            answer.finish()
        else:
            self._work(ask, answer)

    def _begin(self, ask: Ask) -> Answer:
        self.current = answer = Answer(self, ask, self._house.desk.journal)
        return answer

    def _work(self, ask: Ask, answer: Answer) -> None:
        """Let the relay answer, as soon as there is a place for one more."""
        house = self._house
        answer.meter = house.limiter.meter(ask)
        self._place = answer.place = Place(ask.turn, lambda: house.relay.serve(ask, answer), answer.fail)
        try:
            house.slots.enter(self._place)
        except Overloaded as error:
            answer.fail(error)

    # --- for answers (see answer.Wire) ------------------------------------------------------------------------
    @property
    def last(self) -> bool:
        return self._closing and not self._waiting

    @property
    def lines(self) -> bytes:
        return lines((*self._server_state.default_headers, *SANDBOX, *self._leave_now.fields))

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def answered(self, *, keep: bool) -> None:
        """An answer is over; the connection goes on if it can and may."""
        current, self.current = self.current, None
        place, self._place = self._place, None
        if place is not None:
            self._house.slots.leave(place)
        if isinstance(current, Answer) and current.meter is not None:
            # neither an error nor what came from the cache takes anything, nor who left before his turn
            counts = (current.status < 400 or current.status == LEFT) and current.cache != "HIT"
            self._house.limiter.used(current.ask, current.meter, counts=counts and current.meter.begun)
        if self._house.room.guests and not self._waiting:
            self._house.room.free(self, but=self._body.size if self._since else 0)
        self._server_state.total_requests += 1
        self._active_at = self._loop.time()
        if self._since:  # the next request could not be read meanwhile
            self._since = self._active_at
        if keep and not self.last:
            self._go_on()
        else:
            self._deaf = True
            self._transport.close()
