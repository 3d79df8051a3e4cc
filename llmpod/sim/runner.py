"""Not the pod's state: what happens to one pod as time goes by: container, model server, crash, restart, log lines."""

import asyncio
import contextlib
import math
from collections.abc import Sequence

from llmpod.sim.clock import Clock
from llmpod.sim.command import VllmCommand, script_of, vllm_command
from llmpod.sim.containers import Container, PublicPort, start_container
from llmpod.sim.logs import Journal
from llmpod.sim.pods import Address, Pod
from llmpod.sim.scripted import Reaper, ScriptedContainer

_RESTART_PAUSE = 0.1  # seconds between a start that failed and the next
_INNER = Address(
    19123, 60821, "http", "100.65.14.155"
)  # recorded: undeclared, and not reachable from outside


class Runner:
    """The life of one pod's container, from `begin` to `end`; then it may begin again."""

    def __init__(self, pod: Pod, clock: Clock, reaper: Reaper, *, inline: bool) -> None:
        self.pod = pod
        self.journal = Journal()
        self.container: Container | None = None
        self._clock = clock
        self._reaper = reaper
        self._inline = inline
        self._task: asyncio.Task[None] | None = None
        self._doors: list[PublicPort] = []

    def begin(self) -> None:
        """The pod was created or started."""
        self._foretell()
        self._task = asyncio.create_task(self._run())

    async def end(self) -> None:
        """The pod was stopped or deleted: its server and ports are gone when this returns. Idempotent."""
        self.journal.forget_after(self._clock.now())
        task, self._task = self._task, None
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reaches(self, port: int) -> int | None:
        """The port of this machine where the server of that port inside the pod listens; None: nobody does."""
        command = vllm_command(self.pod.config)
        if self.container is None or command is None or command.port != port or command.host == "127.0.0.1":
            return None
        return self.container.port

    async def kill(self) -> None:
        """The main process dies; the container restarts, as RunPod does by itself."""
        if self.container:
            await self.container.stop()

    # --- what happens
    async def _run(self) -> None:
        pod = self.pod
        await self._clock.sleep_until(pod.up_at)
        while not pod.doomed and self._clock.now() < pod.ends_at:
            try:
                await self._open_doors()
                await self._one_life()
            finally:
                await self._close_doors()
            pod.restarted_at = self._clock.now()
            self.journal.add(pod.restarted_at, "system", f"start container for {pod.config['image']}: begin")

    async def _one_life(self) -> None:
        """From a container's start to its end, by crash or by the pod's own."""
        behavior = self.pod.behavior
        crash = self._clock.now() + behavior.crash_seconds if behavior.crash_loop else math.inf
        end = asyncio.create_task(self._clock.sleep_until(min(self.pod.ends_at, crash)))
        serve = asyncio.create_task(self._serve(vllm_command(self.pod.config)))
        try:
            await asyncio.wait([end, serve], return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            serve.cancel()
            await asyncio.wait([serve])
        if not serve.cancelled():
            serve.result()  # a mistake in here must not look like a crash of the container

    async def _serve(self, command: VllmCommand | None) -> None:
        if words := script_of(self.pod.config) if self._runs_scripts else []:
            await self._serve_by_script(words, command)
            return
        model = await self._loaded(command)
        try:
            container = await start_container(model, self.pod.behavior, self._env, inline=self._inline)
        except ValueError:
            await self._failed()
            return
        try:
            self._listens(container, model)
            await container.ended()
        finally:
            self.container = None
            await container.stop()

    async def _serve_by_script(self, words: Sequence[str], command: VllmCommand | None) -> None:
        """The script from the container's start on; the model server in it when its model is loaded."""
        container = await ScriptedContainer.start(
            words,
            self._env,
            self.pod.behavior,
            command=command,
            log=lambda line: self.journal.add(self._clock.now(), "container", line),
        )
        loading = asyncio.create_task(self._load(container, command))
        try:
            await self._reaper.watch(container.pid)
            await container.ended()
            if self.container is None:
                await self._failed()
        finally:
            self.container = None
            loading.cancel()
            await asyncio.wait([loading])
            await container.stop()
            await self._reaper.forget(container.pid)
        if not loading.cancelled():
            loading.result()  # a mistake in here must not look like a model that loads for ever

    async def _load(self, container: ScriptedContainer, command: VllmCommand | None) -> None:
        model = await self._loaded(command)
        with contextlib.suppress(ValueError):  # whoever waits for the container's end sees it, too
            await container.load()
            self._listens(container, model)

    async def _loaded(self, command: VllmCommand | None) -> VllmCommand:
        """Returns when the model is loaded; never for a pod that has none, or no GPU, or is told to."""
        behavior, begun = self.pod.behavior, self._clock.now()
        lost = self.pod.gpu is not None and self.pod.gpu["count"] == 0
        if command is None or behavior.never_ready or lost:
            await asyncio.Event().wait()
        assert command is not None
        self.journal.add(begun, "container", f"INFO Starting to load model {command.model}...")
        since = self.pod.restarted_at if self.pod.restarted_at is not None else self.pod.up_at
        await self._clock.sleep_until(since + behavior.load_seconds)
        return command

    def _listens(self, container: Container, command: VllmCommand) -> None:
        self.container = container
        for door in self._doors:
            door.target = container.port
        ready = f"INFO Started server process; listening on {command.host}:{command.port}"
        self.journal.add(self._clock.now(), "container", ready)

    async def _failed(self) -> None:
        self.journal.add(self._clock.now(), "system", "container exited before it listened")
        await asyncio.sleep(_RESTART_PAUSE)

    @property
    def _runs_scripts(self) -> bool:
        return not self._inline or self.pod.behavior.run_switch

    @property
    def _env(self) -> dict[str, str]:
        """The pod's variables and RunPod's own, which win."""
        return {**self.pod.config["env"], "RUNPOD_POD_ID": self.pod.id, "RUNPOD_API_KEY": self.pod.key}

    async def _open_doors(self) -> None:
        """Public ports; their numbers change at each restart (doc)."""
        addresses = [_INNER]
        for private in self.pod.declared("tcp"):
            door = PublicPort()
            self._doors.append(door)
            addresses.insert(0, Address(private, await door.open(), "tcp", "127.0.0.1"))
        self.pod.addresses = addresses

    async def _close_doors(self) -> None:
        self.pod.addresses = []
        doors, self._doors = self._doors, []
        for door in doors:
            await door.close()

    def _foretell(self) -> None:
        """The system log of the image pull, spread over the time until the container starts."""
        pod, image = self.pod, self.pod.config["image"]
        span = min(pod.behavior.container_seconds, 3600.0)
        name, _, tag = image.rpartition(":")
        steps = [f"create container {image}", f"{tag} Pulling from {name or image}"]
        if pod.doomed:
            steps.append(f"IMAGE_PULL_ERROR: manifest for {image} not found: manifest unknown")
        elif not pod.behavior.stuck:
            steps += [f"layer {number}/3 Pull complete" for number in (1, 2, 3)]
            steps.append(f"Status: Downloaded newer image for {image}")
        for number, step in enumerate(steps):
            self.journal.add(pod.started_at + span * number / len(steps), "system", step)
        if not pod.doomed and not pod.behavior.stuck:
            self.journal.add(pod.up_at, "system", f"start container for {image}: begin")
