"""Not a container's isolation: a pod whose entrypoint is a shell script gets that script run, for real.

It is a process group with the pod's environment and its `vllm` first in PATH (bin/vllm). A pod has a network of its
own and this machine has not, so the number behind `--port` is another one here; all else is as it was created. Like
a container it ends as a whole: with its first process, or with the simulator.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from llmpod.sim.behavior import Behavior
from llmpod.sim.command import FLAGS, VllmCommand
from llmpod.sim.containers import behavior_flags, environment

_BIN = Path(__file__).with_name("bin")
_LONGEST_LINE = 2**20
_PATIENCE = 3.0  # seconds between SIGTERM and SIGKILL


class Reaper:
    """Ends what a killed simulator leaves behind; see reaper.py. Its process is started when it is first needed."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    async def watch(self, group: int) -> None:
        """From now on this process group ends with the simulator."""
        async with self._starting:
            self._process = self._process or await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llmpod.sim.reaper"),
                env=environment({}),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        await self._tell(f"+{group}\n")

    async def forget(self, group: int) -> None:
        """The group has ended."""
        await self._tell(f"-{group}\n")

    async def close(self) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process and process.stdin:
            process.stdin.close()
            await process.wait()

    async def _tell(self, line: str) -> None:
        if self._process and self._process.stdin:
            self._process.stdin.write(line.encode())
            await self._process.stdin.drain()


class ScriptedContainer:
    """One life of a script and of what it started. Create it with `start`."""

    def __init__(
        self, process: asyncio.subprocess.Process, port: int, pipes: "_Pipes", *, log: Callable[[str], None]
    ) -> None:
        self.port = port
        self.pid = process.pid
        self._process = process
        self._pipes = pipes
        self._log = log
        self._listening = asyncio.Event()
        self._hearing = asyncio.create_task(self._hear())

    @classmethod
    async def start(
        cls,
        words: Sequence[str],
        env: Mapping[str, str],
        behavior: Behavior,
        *,
        command: VllmCommand | None,
        log: Callable[[str], None],
    ) -> "ScriptedContainer":
        """Returns when the script runs; its model server waits for `load`."""
        port, pipes = _free_port(), await _Pipes.open()
        named = environment(env)
        named["PATH"] = os.pathsep.join([str(_BIN), env.get("PATH") or os.environ.get("PATH", os.defpath)])
        named["LLMPOD_SIM_PYTHON"] = sys.executable
        named[FLAGS] = json.dumps(behavior_flags(command, behavior) if command else [])
        argv = _with_port(words, port)
        try:
            with pipes.childs_ends() as (stdin, stdout):
                process = await asyncio.create_subprocess_exec(
                    *argv, env=named, stdin=stdin, stdout=stdout, stderr=stdout, start_new_session=True
                )
        except BaseException:  # cancelled, or there is no such shell
            pipes.close()
            raise
        return cls(process, port, pipes, log=log)

    async def load(self) -> None:
        """The model is loaded now; returns when it listens. Raises ValueError when the container ended instead."""
        self._pipes.say(b"loaded\n")
        listening, ended = asyncio.create_task(self._listening.wait()), asyncio.create_task(self.ended())
        try:
            await asyncio.wait({listening, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
            ended.cancel()
        if not self._listening.is_set():
            raise ValueError("the container ended before it listened")

    async def ended(self) -> None:
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM to the first process, then SIGKILL to all of them. Idempotent."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._process.wait()), _PATIENCE)
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._hearing
        self._pipes.close()

    async def _hear(self) -> None:
        """What the container prints, to its end; the fake server's first line says that it listens."""
        while line := await self._pipes.heard.readline():
            text = line.decode(errors="replace").rstrip()
            if text.startswith('{"url": '):
                self._listening.set()
            else:
                self._log(text)


class _Pipes:
    """Standard input and output of a container.

    Not asyncio's own: its `Process.wait` returns only when nobody holds them any more (gh-119710), and the script's
    background part holds them until the first process's end has been seen.
    """

    def __init__(self, child: tuple[int, int], ours: int, heard: asyncio.StreamReader) -> None:
        self.heard = heard
        self._child = child
        self._ours = ours
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def open(cls) -> "_Pipes":
        stdin, ours = os.pipe()
        hearing, stdout = os.pipe()
        pipes = cls((stdin, stdout), ours, asyncio.StreamReader(limit=_LONGEST_LINE))
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(pipes.heard)
        pipes._transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(hearing, "rb", 0))
        return pipes

    @contextmanager
    def childs_ends(self) -> Iterator[tuple[int, int]]:
        """For the process that is started meanwhile; closed here afterwards."""
        try:
            yield self._child
        finally:
            for end in self._child:
                os.close(end)

    def say(self, line: bytes) -> None:
        with suppress(OSError):  # it has ended, which others see
            os.write(self._ours, line)

    def close(self) -> None:
        """Idempotent."""
        if self._transport:
            self._transport.close()
            self._transport = None
            os.close(self._ours)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _with_port(words: Sequence[str], port: int) -> list[str]:
    """The words after the script with another port."""
    script = words.index("-c") + 2
    kept: list[str] = []
    for word, before in zip(words[script:], words[script - 1 :], strict=False):
        if "--port" not in (word, before) and not word.startswith("--port="):
            kept.append(word)
    return [*words[:script], *(kept or ["script"]), "--port", str(port)]
