"""Not the manager: has it pass when a wish was written down, and hears what came of it.

A pass is a program of its own, the same that cron runs, with an environment of a few names. One waits loaded and idle
(``manage_pod.py attend``), because a program takes half a second to start; should it end, another one takes its place.
"""

import asyncio
import contextlib
import json
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import Callable
from pathlib import Path
from typing import Final

from llmpod.config import ProxySettings
from llmpod.observe import Log

MANAGER: Final = Path(__file__).resolve().parents[2] / "manage_pod.py"
END_SECONDS: Final = 5.0  # what a pass gets to end by itself when the proxy ends; it may be killed anywhere
SHORTEST_LIFE_SECONDS: Final = 2.0  # who ends sooner is broken; its successor waits for so long


class Passes:
    """The manager's passes, on demand.

    Args:
        settings: where the configuration is, and what of our environment a pass gets.
        log: told what a pass says beside its reports.
        said: called after each pass with the time before which it read nothing (monotonic seconds), and its failure.
    """

    def __init__(self, settings: ProxySettings, log: Log, *, said: Callable[[float, str], None]) -> None:
        self._settings = settings
        self._log = log
        self._said = said
        self._needed = 0.0
        self._began = 0.0
        self._failure = ""
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load one."""
        self._task = asyncio.create_task(self._run())

    def ask(self) -> float:
        """One pass more, from now on; returns the time that it must not begin before."""
        self._needed = time.monotonic()
        self._nudge()
        return self._needed

    async def aclose(self) -> None:
        """End what waits; let what is at work end."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        if (process := self._process) is not None:
            await self._end(process)

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                self._process = await self._spawn()
            except OSError as e:
                self._log.warning("manager", reason=f"It cannot be started: {e.strerror}")
            else:
                if self._needed > self._began:
                    self._nudge()
                await self._listen(self._process)
                await self._end(self._process)
                self._process = None
            if time.monotonic() - began < SHORTEST_LIFE_SECONDS:
                if self._needed > self._began:
                    self._said(time.monotonic(), "The manager ended at once; its log says why.")
                await asyncio.sleep(SHORTEST_LIFE_SECONDS)  # nobody may wait, but others have work to do

    async def _spawn(self) -> Process:
        config = str(self._settings.config_file)
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(MANAGER), "--config", config, "--no-proxy", "attend"),
            env=dict(self._settings.manager_environ),
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,  # Ctrl-C is for us; it ends when its standard input does
        )

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the reader takes; it was thrown away
                self._log.warning("manager", reason="It said more in one line than anybody reads.")
                continue
            if not line:
                return
            try:
                report = json.loads(line)
                began, error, hint = float(report["began"]), str(report["error"]), str(report["hint"])
            except (ValueError, TypeError, KeyError):
                self._log.warning("manager", reason=line.decode(errors="replace").strip())
                continue
            self._began = max(self._began, began)
            self._advise(error, hint)
            self._said(began, error)

    def _advise(self, error: str, hint: str) -> None:
        """What an operator can do about a failure, once while it lasts; callers are told the failure alone."""
        if hint and error != self._failure:
            self._log.warning("manager", reason=error, hint=hint)
        self._failure = error

    def _nudge(self) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(b"pass\n")  # who has just ended leaves it to its successor

    async def _end(self, process: Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
