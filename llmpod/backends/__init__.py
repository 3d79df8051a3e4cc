"""Not the lifecycle: ways to run a model, each behind one protocol of four methods.

A backend holds no opinion about what should exist. It lists, creates once, destroys once, and says clearly
which of the three outcomes a create had.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from llmpod.config import (
    Config,
    DockerSection,
    PodConfig,
    ProcessSection,
    ServerlessSection,
    SlurmSection,
    StaticSection,
    base_url,
    environment,
)
from llmpod.errors import ProviderError, ProviderUnavailable, Refused
from llmpod.model import Instance, Listing, Offer, Spec
from llmpod.secret import Secret

# What SLURM's commands and a job need of the caller's environment; the cloud key is not in it.
_CLUSTER = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "SLURM_CONF")


class SomeAway(ProviderUnavailable):
    """Of several providers some could not be asked. Who does not go on with a part knows nothing, as ever.

    Args:
        message: which, and why.
        listing: what the others showed.
        models: those whose machines were not looked for.
        causes: why each could not be asked.
    """

    def __init__(
        self, message: str, listing: Listing, models: frozenset[str], *, causes: Sequence[ProviderError]
    ) -> None:
        super().__init__(message, hint=" ".join(dict.fromkeys(cause.hint for cause in causes if cause.hint)))
        self.listing = listing
        self.models = models
        self.causes = causes

    @property
    def final(self) -> Refused | None:
        """Why asking again will not help; None: with one of them it may."""
        known = [cause for cause in self.causes if isinstance(cause, Refused)]
        return known[0] if len(known) == len(self.causes) else None


class Backend(Protocol):
    """One provider of machines."""

    def list(self, expect: Collection[str]) -> Listing:
        """All machines that exist, ours and foreign.

        Args:
            expect: ids that should be there; one that the listing lacks is looked up by itself, so that its
                absence from the result means that list and look-up agree.

        Raises:
            SomeAway: it is known for a part of the models only.
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


@runtime_checkable
class Checking(Protocol):
    """A backend that can tell beforehand that a start would be refused."""

    def check(self) -> None:
        """Nothing is changed.

        Raises:
            BadSpec: what the configuration names is not there.
        """
        ...


@runtime_checkable
class Hasty(Protocol):
    """A backend whose machines can be ended without patience."""

    def hurry(self) -> None:
        """End at once what is being ended politely."""
        ...


def open_backend(config: Config, key: Secret, *, owner: Callable[[str], str | None]) -> Backend:
    """The backend that the configuration names, or several as one.

    Args:
        config: the configuration.
        key: the provider's key; an empty one where none is needed.
        owner: which model a machine was made for, by its name.
    """
    if len(config.models) == 1:
        (model,) = config.models.values()
        return _open_one(config, model, key, config.machines(config.default))
    from llmpod.backends.several import Several

    rented = None
    backends = dict[str, Backend]()
    for name, model in config.models.items():
        if model.is_rented:  # one account
            rented = rented or _open_one(config, model, key, config.directory)
            backends[name] = rented
        else:
            backends[name] = _open_one(config, model, key, config.machines(name))
    return Several(backends, owner)


def _open_one(config: Config, model: PodConfig, key: Secret, machines: Path) -> Backend:
    """That of one model; ``machines`` is where the traces of its machines are."""
    if model.process is not None and model.backend == "process":
        return _processes(config, model.process, machines)
    if model.docker is not None and model.backend == "docker":
        return _docker(model.docker, machines)
    if model.slurm is not None and model.backend == "slurm":
        return _slurm(config, model.slurm, machines)
    if model.static is not None and model.backend == "static":
        return _static(model.static, machines)
    if model.runpod_serverless is not None and model.backend == "runpod_serverless":
        return _serverless(config, model, model.runpod_serverless, key=key)
    from llmpod.backends.runpod_pod import RunpodPods

    return RunpodPods(model, key)


def _serverless(config: Config, model: PodConfig, section: ServerlessSection, *, key: Secret) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.runpod_api import RunpodApi
    from llmpod.backends.runpod_serverless import ServerlessEndpoint
    from llmpod.backends.runpod_serverless_probe import check_key

    api = RunpodApi(model.runpod_api_url, key)
    others = (one for one in config.models.values() if one is not model and one.backend == model.backend)
    endpoints = {one.runpod_serverless.endpoint_id for one in others if one.runpod_serverless is not None}
    return ServerlessEndpoint(
        section,
        api,
        Machines(config.endpoint_notes),
        guard=lambda: check_key(section, key),
        of_others=endpoints - {section.endpoint_id},  # a renamed model has the endpoint of the removed one
    )


def _docker(section: DockerSection, machines: Path) -> Backend:
    from llmpod.backends.docker import Containers
    from llmpod.backends.docker_api import Engine
    from llmpod.backends.docker_existing import ExistingContainer
    from llmpod.backends.machines import Machines

    host = environment().get("DOCKER_HOST", "")
    default = host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock"
    engine = Engine(section.socket or Path(default))
    if section.container is not None:
        return ExistingContainer(section, engine, Machines(machines))
    return Containers(section, engine)


def _slurm(config: Config, section: SlurmSection, machines: Path) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.slurm import SlurmJobs

    environ = environment()
    passed = {name: environ[name] for name in _CLUSTER if name in environ}
    return SlurmJobs(section, Machines(machines), cwd=section.cwd or config.path.parent, environ=passed)


def _static(section: StaticSection, machines: Path) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.static import StaticServer

    return StaticServer(base_url(section.url, name="`static.url`"), Machines(machines))


def _processes(config: Config, section: ProcessSection, machines: Path) -> Backend:
    from llmpod.backends.machines import Machines
    from llmpod.backends.process import LocalProcesses

    cwd = section.cwd or config.path.parent
    return LocalProcesses(section, Machines(machines), cwd=cwd, environ=environment())
