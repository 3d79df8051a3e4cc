"""The program `python -m llmpod.sim.faultproxy --to HOST:PORT`: a TCP proxy that breaks connections as it is told.

Not an HTTP proxy: it knows bytes and their number. One line of JSON on stdout says where it listens. What is broken
is given at the start (`--up`, `--down`) and changed at any time by `PUT /plan` to the control address:
`{"up": {"corrupt": 3}, "down": {"delay": 0.1, "reset": 100}}`. It holds for connections that come later.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress

from llmpod.sim.faultproxy_plan import BadPlan, Course, End, Plan
from llmpod.sim.wire import Exchange, Server

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with zero seconds: close(2) sends RST instead of FIN
_PIECE = 65536
_DIRECTIONS = ("up", "down")


class FaultProxy:
    """Passes connections on to one address, with faults.

    Attributes:
        plans: of the connections to come, by direction: ``up`` from the client, ``down`` to it.
        connections: so far.
    """

    def __init__(self, host: str, port: int, plans: dict[str, Plan] | None = None) -> None:
        self._to = (host, port)
        self.plans = {"up": Plan(), "down": Plan(), **(plans or {})}
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listens; returns the port."""
        self._server = await asyncio.start_server(self._accept, host, port)
        number: int = self._server.sockets[0].getsockname()[1]
        return number

    async def close(self) -> None:
        """Stops listening and cuts what is open."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def control(self, exchange: Exchange) -> None:
        """`GET /plan` tells what holds, `PUT /plan` replaces it."""
        request = exchange.request
        if request.path != "/plan" or request.method not in ("GET", "PUT"):
            await exchange.json(404, {"error": "there is /plan, for GET and PUT"})
            return
        if request.method == "PUT":
            try:
                self.plans = _plans(json.loads(request.body))
            except ValueError as error:
                await exchange.json(400, {"error": str(error)})
                return
        await exchange.json(200, {"connections": self.connections})

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        up, down = (Course(self.plans[name]) for name in _DIRECTIONS)
        try:
            there, back = await asyncio.open_connection(*self._to)
        except OSError:
            _cut(writer)
            return
        try:
            ways = [_pass(reader, back, up), _pass(there, writer, down)]
            await _first_reset([asyncio.ensure_future(way) for way in ways])
        finally:
            for side in (writer, back):
                if End.RESET in (up.over, down.over):
                    _cut(side)
                else:
                    side.close()


async def _first_reset(ways: Sequence["asyncio.Future[End | None]"]) -> None:
    """Returns when both ways are over, or one of them by a reset."""
    try:
        for way in asyncio.as_completed(ways):
            if await way is End.RESET:
                return
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, course: Course) -> End | None:
    """Everything of one direction; what ended it, if that was no end of the sender's."""
    with suppress(OSError):
        while course.over is None:
            data = await reader.read(_PIECE)
            if not data:
                break
            for wait, piece in course.pieces(data):
                if wait:
                    await asyncio.sleep(wait)
                writer.write(piece)
                await writer.drain()
        if course.over is End.HOLE:
            await asyncio.Event().wait()
        if course.over is not End.RESET and writer.can_write_eof():
            writer.write_eof()
        while course.over is End.CLOSE and await reader.read(_PIECE):
            pass  # it may go on sending: nobody hears it
    return course.over


def _cut(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


def _plans(given: object) -> dict[str, Plan]:
    """Raises BadPlan."""
    good = isinstance(given, dict) and all(isinstance(plan, dict) for plan in given.values())
    if not isinstance(given, dict) or not good or not set(given) <= set(_DIRECTIONS):
        raise BadPlan("a plan is an object with `up`, `down` or both, each an object of faults")
    return {name: Plan.of(given.get(name, {})) for name in _DIRECTIONS}


def main(argv: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m llmpod.sim.faultproxy", allow_abbrev=False)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where connections are passed on to")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    for name, way in (("--up", "from the client"), ("--down", "to the client")):
        parser.add_argument(
            name, default="", metavar="PLAN", help=f"faults {way}, for example delay=1,reset=99"
        )
    options = parser.parse_args(argv)
    host, _, port = options.to.rpartition(":")
    try:
        plans = {"up": Plan.parse(options.up), "down": Plan.parse(options.down)}
    except BadPlan as error:
        parser.error(str(error))
    if not host or not port.isdecimal():
        parser.error("--to takes HOST:PORT")
    asyncio.run(_run(FaultProxy(host, int(port), plans), options.port))
    return 0


async def _run(proxy: FaultProxy, port: int) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    listens = await proxy.start(port=port)
    control = await Server(proxy.control).start("127.0.0.1")
    told = {"port": listens, "control_url": f"http://127.0.0.1:{control.port}/plan", "pid": os.getpid()}
    print(json.dumps(told), flush=True)
    await over.wait()
    await control.close()
    await proxy.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
