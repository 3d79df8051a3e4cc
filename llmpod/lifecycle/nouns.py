"""Not the names of backends: what people call one machine of each, for texts about it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from llmpod.model import Record

POD: Final = "pod"
_THINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "process": "process",
        "docker": "container",
        "slurm": "job",
        "static": "server",
        "runpod_serverless": "endpoint",
    }
)


def thing_of(backend: object) -> str:
    """The word for a machine of a backend; a pod, where it is rented."""
    return _THINGS.get(str(backend), POD)


def things_of(backend: object) -> str:
    """The same for several machines."""
    one = thing_of(backend)
    return f"{one}es" if one.endswith("s") else f"{one}s"


def thing(record: Record) -> str:
    """The word for a record's machine, by the configuration that it was made from."""
    return thing_of(record.config.get("backend"))


def vanished(record: Record) -> str:
    """What is to be said of a machine that is gone without an order."""
    why = "terminated in the console, ended by its own switch, or lost by the provider"
    known = why if thing(record) == POD else "ended or removed by somebody else"
    return f"the {thing(record)} vanished: {known}"
