"""Not the lifecycle: ways to run a model, each behind one protocol of four methods.

A backend holds no opinion about what should exist. It lists, creates once, destroys once, and says clearly
which of the three outcomes a create had.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from llmpod.config import (
    Config,
    DockerSection,
    ProcessSection,
    ServerlessSection,
    SlurmSection,
    StaticSection,
    base_url,
    environment,
)
from llmpod.model import Instance, Listing, Offer, Spec
from llmpod.secret import Secret

# What SLURM's commands and a job need of the caller's environment; the cloud key is not in it.
_CLUSTER = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SLURM_CONF")


class Backend(Protocol):
    """One provider of machines."""

    def list(self, expect: Collection[str]) -> Listing:
        """All machines that exist, ours and foreign.

        Args:
            expect: ids that should be there; one that the listing lacks is looked up by itself, so that its
                absence from the result means that list and look-up agree.

        Raises:
            ProviderError: the answer is not known; nothing may be concluded from it.
        """
        ...

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        """Create one machine under a name that was never used before; exactly one attempt.

        Args:
            spec: what to run.
            offer: the GPU to run it on.
            name: unique name, already on disk.
            env: secrets for this machine, added to ``spec.env``.
            deadline: when the machine must end itself even if nobody is left to end it; armed at its creation.

        Raises:
            CreateUnknown: it may exist; look for ``name``.
            ProviderError: any other of its kinds says that it was provably not created.
        """
        ...

    def destroy(self, instance_id: str) -> bool:
        """Order the end of one machine.

        Returns:
            True when the provider accepted it, False when it does not know the machine (no proof of absence).

        Raises:
            ProviderError: the order did not get through.
        """
        ...

    def close(self) -> None:
        """Release connections. Idempotent."""
        ...


@runtime_checkable
class Speaking(Protocol):
    """A backend that keeps what its machines say."""

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        """The last lines of a machine's log, oldest first; none where there is no log.

        Raises:
            ProviderError: it cannot be read now.
        """
        ...


def open_backend(config: Config, key: Secret) -> Backend:
    """The backend that the configuration names.

    Args:
        config: the configuration.
        key: the provider's key; an empty one where none is needed.
    """
    common = config.common
    if common.process is not None and common.backend == "process":
        return _processes(config, common.process)
    if common.docker is not None and common.backend == "docker":
        return _docker(config, common.docker)
    if common.slurm is not None and common.backend == "slurm":
        return _slurm(config, common.slurm)
    if common.static is not None and common.backend == "static":
        return _static(config, common.static)
    if common.runpod_serverless is not None and common.backend == "runpod_serverless":
        return _serverless(config, common.runpod_serverless, key)
    from llmpod.backends.runpod_pod import RunpodPods

    return RunpodPods(common, key)


def _serverless(config: Config, section: ServerlessSection, key: Secret) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.runpod_api import RunpodApi
    from llmpod.backends.runpod_serverless import ServerlessEndpoint
    from llmpod.backends.runpod_serverless_probe import check_key

    api = RunpodApi(config.common.runpod_api_url, key)
    machines = Machines(config.directory / "machines")
    return ServerlessEndpoint(section, api, machines, guard=lambda: check_key(section, key))


def _docker(config: Config, section: DockerSection) -> Backend:
    from llmpod.backends.docker import Containers
    from llmpod.backends.docker_api import Engine
    from llmpod.backends.docker_existing import ExistingContainer
    from llmpod.backends.machines import Machines

    host = environment().get("DOCKER_HOST", "")
    default = host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock"
    engine = Engine(section.socket or Path(default))
    if section.container is not None:
        return ExistingContainer(section, engine, Machines(config.directory / "machines"))
    return Containers(section, engine)


def _slurm(config: Config, section: SlurmSection) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.slurm import SlurmJobs

    environ = environment()
    passed = {name: environ[name] for name in _CLUSTER if name in environ}
    machines = Machines(config.directory / "machines")
    return SlurmJobs(section, machines, cwd=config.path.parent, environ=passed)


def _static(config: Config, section: StaticSection) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.static import StaticServer

    return StaticServer(base_url(section.url, name="`static.url`"), Machines(config.directory / "machines"))


def _processes(config: Config, section: ProcessSection) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.process import LocalProcesses

    cwd = section.cwd or config.path.parent
    machines = Machines(config.directory / "machines")
    return LocalProcesses(section, machines, cwd=cwd, environ=environment())
