"""Not the way of ``/v1``: one request for people, scrapers and supervisors, through the ASGI application."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from llmpod.proxy.ask import Ask

_CLOSE: Final = ((b"connection", b"close"),)
_LOGGER: Final = logging.getLogger("uvicorn.error")


@dataclass(slots=True)
class Stage:
    """What ASGI needs to know of a connection."""

    config: Config
    server_state: ServerState
    app_state: dict[str, Any]
    transport: asyncio.Transport
    flow: FlowControl

    def run(self, ask: Ask, answered: Callable[[], None]) -> RequestResponseCycle:
        """Start the application on a whole request; ``answered`` is called at the end of a good answer."""
        cycle = RequestResponseCycle(
            scope=self._scope(ask),  # type: ignore[arg-type]  # a dict of just these keys
            transport=self.transport,
            flow=self.flow,
            logger=_LOGGER,
            access_logger=_LOGGER,
            access_log=False,
            default_headers=[*self.server_state.default_headers, *ask.leave.fields, *_CLOSE[: not ask.keep]],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=ask.keep,
            on_response=answered,
        )
        cycle.body = bytearray(ask.body)
        cycle.more_body = False
        cycle.message_event.set()
        tasks = self.server_state.tasks
        task = asyncio.get_running_loop().create_task(cycle.run_asgi(self.config.loaded_app))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return cycle

    def _scope(self, ask: Ask) -> dict[str, Any]:
        raw_path, _, query = ask.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": self.config.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1" if ask.chunks else "1.0",
            "method": ask.method,
            "scheme": "https" if is_ssl(self.transport) else "http",
            "server": get_local_addr(self.transport),
            "client": get_remote_addr(self.transport),
            "root_path": "",
            "path": unquote(ask.path),
            "raw_path": raw_path,
            "query_string": query,
            "headers": ask.headers,
            "state": {**self.app_state, "known": not ask.leave.anonymous},
        }
