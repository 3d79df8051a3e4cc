"""Not the plane, which is put together of them: the backends and probers that a configuration needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llmpod.backends import Backend, open_backend
from llmpod.backends.machines import Machines
from llmpod.backends.runpod_serverless import ServerlessEndpoint
from llmpod.backends.runpod_serverless_probe import ServerlessProber
from llmpod.backends.several import Several
from llmpod.config import Config, needs_key, provider_key
from llmpod.errors import StateError
from llmpod.lifecycle import match
from llmpod.lifecycle.act import Prober
from llmpod.lifecycle.probe import HttpProber
from llmpod.lifecycle.store import Store
from llmpod.model import Health, Instance, Phase
from llmpod.secret import Secret
from llmpod.veil import Veil


def with_removed(
    config: Config, store: Store, key: Secret, environ: Mapping[str, str]
) -> tuple[Config, Secret]:
    """With the models that were removed and still have a machine, and the key that these need."""
    try:
        records = store.load().records
    except StateError:  # a pass says so
        return config, key
    there = {
        name: record.config
        for name, record in records.items()
        if name not in config.models and record.phase not in (Phase.STOPPED, Phase.FAILED)
    }
    whole = config.with_removed(there)
    if not any(map(needs_key, config.backends)):
        key = provider_key(whole.backends, environ)
    return whole, key


def backend_of(config: Config, key: Secret) -> Backend:
    """Where the models of a configuration run."""
    return open_backend(config, key, owner=lambda name: match.owner(name, config.models))


def prober_of(config: Config, backend: Backend, veil: Veil) -> Prober:
    """Asks model servers: those that a request wakes, and bills for, with care."""
    plain = HttpProber(veil)

    def of_backend(one: Backend | None) -> Prober:
        if isinstance(one, ServerlessEndpoint):
            return ServerlessProber(one, Machines(config.endpoint_notes), plain)
        return plain

    return (
        _Probers(lambda id_: of_backend(backend.of(id_)))
        if isinstance(backend, Several)
        else of_backend(backend)
    )


@dataclass(frozen=True, slots=True)
class _Probers:
    """Asks each machine as its backend has it; ``of``: by its id."""

    of: Callable[[str], Prober]

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        return self.of(seen.id).check(seen, api_key, served_name, was_ready=was_ready)
