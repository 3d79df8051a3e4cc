"""Not Docker: runs a pod's fake vLLM, as a process or inside this event loop, and the public TCP ports before it."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from llmpod.sim.behavior import Behavior
from llmpod.sim.command import VllmCommand

_ROOT = Path(__file__).resolve().parents[2]
_BUFFER = 64 * 1024


class Container(Protocol):
    """A running model server."""

    port: int

    @property
    def pid(self) -> int | None:
        """Of its first process; None when it has none of its own."""

    async def ended(self) -> None:
        """Returns when the server is dead."""

    async def stop(self) -> None:
        """Ends it; idempotent."""


def behavior_flags(command: VllmCommand, behavior: Behavior) -> list[str]:
    """How the fake server is told to behave; it also ends with this process."""
    argv = ["--served-model-name", _served(command, behavior), "--parent-pid", str(os.getpid())]
    argv += ["--first-token-seconds", str(behavior.first_token_seconds)]
    argv += ["--tokens-per-second", str(behavior.tokens_per_second)]
    return argv + (["--ignore-key"] if behavior.pod_ignores_key else [])


def _served(command: VllmCommand, behavior: Behavior) -> str:
    return f"not-{command.served_name}" if behavior.wrong_model else command.served_name


def _flags(command: VllmCommand, behavior: Behavior) -> dict[str, object]:
    return {
        "model": command.model,
        "served_name": _served(command, behavior),
        "api_key": command.key,
        "ignore_key": behavior.pod_ignores_key,
        "max_model_len": command.max_model_len,
        "first_token_seconds": behavior.first_token_seconds,
        "tokens_per_second": behavior.tokens_per_second,
        "auto_tools": command.auto_tools,
    }


class ProcessContainer:
    """The server as a process of its own, which ends when this one does, SIGKILL included."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self.pid: int | None = process.pid
        self._process = process

    @classmethod
    async def start(
        cls, command: VllmCommand, behavior: Behavior, env: Mapping[str, str]
    ) -> "ProcessContainer":
        """Returns when it listens. Raises ValueError when it ended instead."""
        argv = ["--port", "0", "--model", command.model, "--max-model-len", str(command.max_model_len)]
        argv += ["--enable-auto-tool-choice"] if command.auto_tools else []
        argv += behavior_flags(command, behavior)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "llmpod.sim.vllm", *argv),
            env=environment({**env, **({"VLLM_API_KEY": command.key} if command.key else {})}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = await process.stdout.readline()
            port = int(json.loads(line)["url"].rpartition(":")[2])
        except BaseException:  # cancelled or unreadable: nobody else knows of this process yet
            await _end(process)
            raise
        return cls(process, port)

    async def ended(self) -> None:
        await self._process.wait()

    async def stop(self) -> None:
        await _end(self._process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), 3)
    except TimeoutError:
        process.kill()
        await process.wait()


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The pod's variables; of ours, only what Python needs to start."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV") if name in os.environ}
    inherited = os.environ.get("PYTHONPATH", "")
    return {**env, **kept, "PYTHONPATH": os.pathsep.join([str(_ROOT), *([inherited] if inherited else [])])}


class InlineContainer:
    """The same server in this event loop: no process, so hundreds of pods are cheap."""

    pid: int | None = None

    def __init__(self, command: VllmCommand, behavior: Behavior) -> None:
        from llmpod.sim.vllm.app import vllm_app
        from llmpod.sim.vllm.options import VllmOptions
        from llmpod.sim.vllm.server import Server

        self._app = vllm_app(VllmOptions(**_flags(command, behavior)))  # type: ignore[arg-type]  # one dict, many types
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ready = asyncio.Event()
        self._server = Server(self._app, on_ready=self._ready.set)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    async def ready(self) -> None:
        """Returns when it listens."""
        await self._ready.wait()

    async def ended(self) -> None:
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        self._app.drain()
        self._server.should_exit = True
        await asyncio.shield(self._task)
        self._listener.close()


async def start_container(
    command: VllmCommand, behavior: Behavior, env: Mapping[str, str], *, inline: bool
) -> Container:
    """A server that listens. Raises ValueError when its process ended instead."""
    if not inline:
        return await ProcessContainer.start(command, behavior, env)
    container = InlineContainer(command, behavior)
    try:
        await container.ready()
    except asyncio.CancelledError:
        await container.stop()
        raise
    return container


class PublicPort:
    """A TCP port of the host that leads to a pod, as `"8000/tcp"` asks for; it hangs up while nothing listens."""

    def __init__(self) -> None:
        self.target: int | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Listen on a free port and return it."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # either side left, or the port is being closed: both connections end below
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.target is None:
            return
        back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        ways = [asyncio.create_task(_pump(reader, forth)), asyncio.create_task(_pump(back, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            forth.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_BUFFER):
            writer.write(data)
            await writer.drain()
