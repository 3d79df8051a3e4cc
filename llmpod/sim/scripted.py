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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
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
        self, process: asyncio.subprocess.Process, port: int, reaper: Reaper, *, log: Callable[[str], None]
    ) -> None:
        self.port = port
        self.pid: int | None = process.pid
        self._process = process
        self._reaper = reaper
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
        reaper: Reaper,
        log: Callable[[str], None],
    ) -> "ScriptedContainer":
        """Returns when the script runs; its model server waits for `load`."""
        port = _free_port()
        named = environment(env)
        named["PATH"] = os.pathsep.join([str(_BIN), env.get("PATH") or os.environ.get("PATH", os.defpath)])
        named["LLMPOD_SIM_PYTHON"] = sys.executable
        named[FLAGS] = json.dumps(behavior_flags(command, behavior) if command else [])
        process = await asyncio.create_subprocess_exec(
            *_with_port(words, port),
            env=named,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=_LONGEST_LINE,
        )
        container = cls(process, port, reaper, log=log)
        try:
            await reaper.watch(process.pid)
        except BaseException:  # cancelled: nobody else knows of this process yet
            await container.stop()
            raise
        return container

    async def load(self) -> None:
        """The model is loaded now; returns when it listens. Raises ValueError when the container ended instead."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it ended: seen below
            self._process.stdin.write(b"loaded\n")
            await self._process.stdin.drain()
        listening = asyncio.create_task(self._listening.wait())
        try:
            await asyncio.wait({listening, self._hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            listening.cancel()
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
        await self._reaper.forget(self._process.pid)

    async def _hear(self) -> None:
        """What the container prints, to its end; the fake server's first line says that it listens."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            if text.startswith('{"url": '):
                self._listening.set()
            else:
                self._log(text)


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
