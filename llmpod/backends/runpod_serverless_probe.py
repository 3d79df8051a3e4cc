"""Not the asking of a model server, which is another prober's: when a serverless endpoint may be asked at all.

Each request to it starts a worker, or keeps one from ending, and is billed. So it is asked only to wake it for the
first time, when that was not done a moment ago, and where a worker is there anyway; all else is read off its counts,
which wake nothing. What they say is never proof that it is ready: the first time is always a real answer.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

from llmpod.backends.machines import Machines
from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_endpoint import Load
from llmpod.backends.runpod_serverless import ServerlessEndpoint
from llmpod.config import ServerlessSection
from llmpod.config.credentials import read_private
from llmpod.errors import BadCredentials, ProviderError, ProviderUnavailable
from llmpod.model import Health, Instance, Phase
from llmpod.secret import Secret

WAKE_AGAIN_SECONDS = 120.0
LOAD_FILE = "load.json"
"""In the machine's directory: the last counts, for who shows them."""


class Prober(Protocol):
    """Asks a model server how far it is."""

    def check(
        self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool
    ) -> Health: ...


class ServerlessProber:
    """Asks an endpoint as seldom as can be.

    Args:
        backend: knows its addresses and its workers.
        machines: where its counts and its last waking are noted.
        ask: asks it for real.
        looked: reads ``/health``: from an address and a key to the counts; raises ProviderError.
        clock: epoch seconds.
    """

    def __init__(
        self,
        backend: ServerlessEndpoint,
        machines: Machines,
        ask: Prober,
        *,
        looked: Callable[[str, Secret], Load] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._backend = backend
        self._machines = machines
        self._ask = ask
        self._looked = looked or look
        self._clock = clock

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        """See :class:`llmpod.lifecycle.probe.HttpProber`; counts that cannot be had prove nothing either way."""
        if api_key is None:
            return Health(Phase.BOOTING, "the file with the endpoint's key cannot be read")
        try:
            load = self._load(seen, api_key)
        except ProviderUnavailable as e:
            return Health(Phase.READY if was_ready else Phase.CREATED, e.message)
        except ProviderError as e:
            return Health(Phase.BOOTING, f"its counts are refused: {e.message}")
        if load.broken:
            return Health(Phase.BOOTING, str(load))
        if was_ready and not load.contradicts:
            return Health(Phase.READY, str(load))
        if load.awake:
            return self._ask.check(seen, api_key, served_name, was_ready=was_ready)
        if load.sleeps and self._may_wake(seen):
            return self._wake(seen, api_key, served_name)
        return Health(Phase.CREATED, str(load))

    def _wake(self, seen: Instance, api_key: Secret, served_name: str) -> Health:
        """The prober's own questions wake it; whether they got an answer in time says little, its counts say more."""
        health = self._ask.check(seen, api_key, served_name, was_ready=False)
        with suppress(ProviderError):
            load = self._load(seen, api_key)
            if not health.ready and not load.sleeps:
                return Health(Phase.BOOTING, f"woken by a request; {load}")
        return health

    def _load(self, seen: Instance, api_key: Secret) -> Load:
        endpoint = self._backend.find(seen.id)
        url = endpoint.health_url
        load = self._looked(url, api_key) if url else self._backend.workers(endpoint)
        self._machines.note(seen.id, LOAD_FILE, {"at": self._clock(), "said": str(load)})
        return load

    def _may_wake(self, seen: Instance) -> bool:
        """Once in a while: a request that waits in a queue is not to be followed by another."""
        before, now = self._machines.document(seen.id, "woken.json").get("at"), self._clock()
        if isinstance(before, int | float) and 0 <= now - before < WAKE_AGAIN_SECONDS:
            return False
        self._machines.note(seen.id, "woken.json", {"at": now})
        return True


def look(url: str, api_key: Secret) -> Load:
    """What ``/health`` says to the endpoint's own key. Raises ProviderError."""
    parts = urlsplit(url)
    api = RunpodApi(f"{parts.scheme}://{parts.netloc}", api_key)
    try:
        return Load.of_health(api.get(parts.path))
    finally:
        api.close()


def check_key(section: ServerlessSection, account: Secret) -> None:
    """The proxy reads the endpoint's key, so that must not be the account's.

    Raises:
        BadCredentials: it is, or the file with it cannot be used.
    """
    found = read_private(section.api_key_file).strip()
    if not found:
        raise BadCredentials(
            f"{section.api_key_file} is empty.", hint="Put the endpoint's key alone into it."
        )
    if found == account.reveal().strip():
        raise BadCredentials(
            f"{section.api_key_file} holds the account's own key, which the proxy must never have.",
            hint="Make a restricted key for this endpoint alone at https://console.runpod.io/user/settings.",
        )
