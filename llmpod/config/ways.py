"""Not the pods of RunPod: the settings of the other ways to run a model, one section for each backend.

Each way has its own defaults for a few of the common keys, since a local command is there at once, is looked at for
nothing and costs nothing; they stand in :data:`DEFAULTS`.
"""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from llmpod.config.section import Name, Port, Section, Word

TEN_YEARS = 3650 * 24 * 3600
RENTED = frozenset({"runpod", "demo"})
"""The backends that buy machines by the hour."""
BILLED = RENTED | {"runpod_serverless"}
"""The backends that RunPod sends a bill for."""

Variables = Annotated[
    Mapping[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], Word], Field(strict=False)
]
Mount = Annotated[str, Field(pattern=r"^[^:]+:/[^:]*(:[a-zA-Z,]+)?$")]
_OURS = tuple(
    f"--{name}"
    for name in (
        *("job-name", "dependency", "array", "wrap", "output", "error", "wait", "parsable"),
        "clusters",  # a job on another one would neither be listed nor ended
    )
)
KEY_VARIABLES = ("VLLM_API_KEY", "LLAMA_API_KEY")


class Command(Section):
    """What every way to run a command of the user's shares."""

    command: Annotated[tuple[Word, ...], Field(min_length=1, strict=False)] = Field(
        description="The command as a list of words; no shell reads it. `{host}` and `{port}` are filled in;"
        " without `{port}`, `--host` and `--port` are added."
    )
    env: Variables = Field(
        default_factory=dict, description="More environment variables; nothing secret belongs here."
    )
    api_key_env: Annotated[tuple[Name, ...], Field(strict=False)] = Field(
        KEY_VARIABLES, description="The variables in which the server gets its key (vLLM's, llama.cpp's)."
    )
    ping_path: Annotated[str, Field(max_length=200, pattern=r"^/[\x21-\x7e]*$")] | None = Field(
        None, description="A path that answers 200 once the server is ready (404: it has none), asked first."
    )
    require_key: bool = Field(
        False, description="Whether a server that answers without its key is ended, as a pod would be."
    )

    def words(self, host: str, port: int) -> tuple[str, ...]:
        """The command for one address; see :func:`addressed`."""
        return addressed(self.command, host, port)


class ProcessSection(Command):
    """A command on this machine."""

    port: Port | None = Field(
        None, description="The port of the server; a free one from 8101 upwards if absent."
    )
    cwd: Path | None = Field(
        None, strict=False, description="Working directory; that of the configuration file if absent."
    )
    stop_seconds: Annotated[float, Field(ge=0, le=600, strict=False)] = Field(
        10.0, description="From SIGTERM to SIGKILL."
    )


class DockerSection(Command):
    """A container of an engine on this machine, or one that exists already (``container``)."""

    image: Name | None = Field(None, description="The image; it is not pulled by itself.")
    container: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = Field(
        None,
        description="Instead of `image`: the name of an existing container (of a compose file), to start and stop.",
    )
    command: Annotated[tuple[Word, ...], Field(strict=False)] = Field(
        (), description="Arguments for the image; `--host` and `--port` as for `process`."
    )
    entrypoint: Annotated[tuple[Word, ...], Field(strict=False)] | None = Field(
        None, description="Instead of the image's own."
    )
    gpus: (
        Literal["all"] | Annotated[int, Field(ge=1)] | Annotated[tuple[Name, ...], Field(strict=False)] | None
    ) = Field(None, description="`all`, a number, or a list of GPU ids; none if absent.")
    mounts: Annotated[tuple[Mount, ...], Field(strict=False)] = Field(
        (), description="`/host/path:/inside` or `/host/path:/inside:ro`."
    )
    shm_gb: Annotated[float, Field(gt=0, le=1024, strict=False)] | None = Field(
        None, description="Shared memory; vLLM on several GPUs wants 8 or more."
    )
    network: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = Field(
        "bridge",
        description="With `host` the server listens on loopback itself; else its port is published there.",
    )
    port: Port | None = Field(
        None, description="The port on this machine; a free one from 8101 upwards if absent."
    )
    stop_seconds: Annotated[float, Field(ge=0, le=600, strict=False)] = Field(
        10.0, description="From SIGTERM to SIGKILL."
    )
    socket: Path | None = Field(
        None,
        strict=False,
        description="The engine's unix socket; DOCKER_HOST or /var/run/docker.sock if absent.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "DockerSection":
        if (self.image is None) == (self.container is None):
            raise ValueError("give exactly one of `image` and `container`")
        if self.container is not None and self.port is None:
            raise ValueError("`container` needs `port`, where it is reached on this machine")
        return self


class SlurmSection(Command):
    """A job on a SLURM cluster, reached through an SSH tunnel from its node back to this machine."""

    options: Annotated[tuple[Word, ...], Field(strict=False)] = Field(
        (), description="Options of the job as a list of words, such as `--gres=gpu:1`."
    )
    srun: Annotated[str, Field(max_length=10_000)] | None = Field(
        None,
        description="The same as a line, as for `srun`: `srun --mem=30G --gres=gpu:1`; split, run by no shell.",
    )
    loopback_user: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$")] = Field(
        description="The account on this machine that the node's ssh logs in to."
    )
    loopback_host: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9\[][A-Za-z0-9_.:\]-]*$")] = (
        Field(description="This machine's name or address, as the node reaches it.")
    )
    cwd: Path | None = Field(
        None,
        strict=False,
        description="Working directory on the node; that of the configuration file if absent.",
    )
    ssh_port: Port | None = Field(
        None, description="The port of this machine's SSH server; 22, or what ssh's own files say, if absent."
    )
    identity_file: Name | None = Field(None, description="The private key, by its path on the node.")
    known_hosts: Name | None = Field(
        None, description="A file on the node with this machine's host key; ssh's own if absent."
    )
    port: Port | None = Field(
        None, description="The tunnel's port on this machine; a free one from 8101 upwards if absent."
    )

    @model_validator(mode="after")
    def _options_are_options(self) -> "SlurmSection":
        try:
            words = self.job_options
        except ValueError as e:
            raise ValueError(f"`srun` cannot be split into words: {e}") from None
        before = "--"
        for word in words:
            value = before.startswith("-") and "=" not in before and before != "--"
            if not word.startswith("-") and not value:
                raise ValueError(f"`srun` and `options` hold options only, and {word!r} is none")
            if _is_ours(word):
                raise ValueError(f"{word!r} is set by llmpod, which knows its jobs by it")
            before = word
        return self

    @property
    def job_options(self) -> tuple[str, ...]:
        """All options of the job as words. Raises ValueError: a quotation has no end."""
        line = shlex.split(self.srun or "")
        return (*(line[1:] if line[:1] == ["srun"] else line), *self.options)

    @property
    def target(self) -> str:
        """Where the tunnel leads, as ssh reads it."""
        return f"{self.loopback_user}@{self.loopback_host}"


def _is_ours(word: str) -> bool:
    """Whether an option is one that llmpod sets; sbatch takes the beginning of a long one for the whole."""
    name = word.partition("=")[0]
    return re.match(r"-[JdaoeWM]", word) is not None or (
        len(name) > len("--") + 1 and any(whole.startswith(name) for whole in _OURS)
    )


class StaticSection(Section):
    """A model server that somebody else runs."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s?#]+$", max_length=2000)] = Field(
        description="Its address, with or without `/v1` at the end."
    )
    api_key_file: Path | None = Field(
        None, strict=False, description="A 0600 file with the key that it wants, alone; none if absent."
    )


class ServerlessSection(Section):
    """A serverless endpoint of RunPod that exists."""

    endpoint_id: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")] = Field(
        description="Its id; RUNPOD_VLLM_ENDPOINT_ID if absent."
    )
    api_key_file: Path = Field(
        strict=False,
        description="A 0600 file with a RunPod key that is restricted to this endpoint: the proxy's.",
    )
    park: bool = Field(
        True,
        description="Whether `up` and `down` set its worker limits, down to 0 and 0; false: they are left alone.",
    )
    min_workers: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="Workers that stay, and cost, while it is up; 0: a request wakes one."
    )
    max_workers: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="Workers at most while it is up."
    )

    @model_validator(mode="after")
    def _in_order(self) -> "ServerlessSection":
        if self.min_workers > self.max_workers:
            raise ValueError("`min_workers` is more than `max_workers`")
        return self


SECTIONS: Mapping[str, type[Section]] = {
    "process": ProcessSection,
    "docker": DockerSection,
    "slurm": SlurmSection,
    "static": StaticSection,
    "runpod_serverless": ServerlessSection,
}
"""The section that each backend reads."""

_AT_ONCE: Mapping[str, Any] = {
    "runtime_seconds": TEN_YEARS,
    "initial_wait_seconds": 0,
    "poll_interval_seconds": 0.25,
    "max_startup_attempts": 1000,
    "restart_backoff_seconds": 2,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "process": {**_AT_ONCE, "create_grace_seconds": 2.0},
    "docker": {**_AT_ONCE, "create_grace_seconds": 90.0},
    "slurm": {
        **_AT_ONCE,
        "runtime_seconds": 24 * 3600,
        "startup_timeout_seconds": 24 * 3600,  # a queue may be long
        "poll_interval_seconds": 2,
        "create_grace_seconds": 60.0,
    },
    "static": {
        **_AT_ONCE,
        "create_grace_seconds": 0.0,
        "startup_timeout_seconds": TEN_YEARS,
        "unhealthy_after": 10**9,  # it is somebody else's to mend; we go on looking
    },
    "runpod_serverless": {"initial_wait_seconds": 0, "create_grace_seconds": 60.0},
}
"""What a key is by default where the backend makes a difference."""


def addressed(command: tuple[str, ...], host: str, port: int) -> tuple[str, ...]:
    """A command with its address filled in.

    Args:
        command: words; ``{host}`` and ``{port}`` are replaced wherever they stand, other braces are left alone.
        host: where to listen.
        port: on which port.
    """
    words = tuple(word.replace("{host}", host).replace("{port}", str(port)) for word in command)
    if any("{port}" in word for word in command):
        return words
    return (*words, "--host", host, "--port", str(port))
