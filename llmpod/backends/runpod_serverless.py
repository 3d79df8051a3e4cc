"""Not a pod and not made by us: a serverless endpoint of RunPod that exists, as a backend.

Its workers come and go by themselves; what we hold is the tap. "Create" opens it (worker limits), "destroy" parks it
(limits 0, so that nothing can cost any more), and both are one absolute PATCH that may be given again. That it was
ever used is noted in a directory of ours; whether it is open, and what still runs there, is RunPod's word. So one that
we have used and that is open without an order is found and parked, whoever or whatever late call has opened it.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from llmpod.backends.machines import Machines
from llmpod.backends.runpod_api import RunpodApi, path_id
from llmpod.backends.runpod_endpoint import Endpoint, Load, billed_gpus
from llmpod.config import ServerlessSection
from llmpod.errors import BadSpec, CreateUnknown, NotFound, ProviderError
from llmpod.model import Instance, Listing, Observed, Offer, Spec


class ServerlessEndpoint:
    """One endpoint.

    Args:
        section: names it and its limits.
        api: RunPod's API, with the account's key.
        machines: where the use of it is noted.
        guard: called before it is opened; raises ProviderError when the key for it cannot be used.
        of_others: the endpoints of other models, which are theirs to look after.
        clock: epoch seconds, where RunPod does not say its own.
    """

    def __init__(
        self,
        section: ServerlessSection,
        api: RunpodApi,
        machines: Machines,
        *,
        guard: Callable[[], object],
        of_others: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._section = section
        self._api = api
        self._machines = machines
        self._guard = guard
        self._of_others = of_others
        self._clock = clock
        self._prices: dict[str, float | None] = {}

    def __repr__(self) -> str:
        return f"ServerlessEndpoint({self._section.endpoint_id}, {self._api})"

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - what was used is noted
        names = self._used()
        if not names:  # for RunPod's clock, and for who wants to know whether it can be used at all
            self._configured()
        shown = [seen for name in names if (seen := self._seen(name)) is not None]
        return Listing(tuple(shown), self._api.said_at)

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - there is one endpoint
        name: str,
        env: Mapping[str, str],  # noqa: ARG002 - it has its own key
        *,
        deadline: float,  # noqa: ARG002 - nothing in it can end it; a pass parks it
    ) -> Instance:
        self._guard()
        self._machines.tidy(self._latest().values())
        self._note(name, spec.digest)
        try:
            endpoint = self._open()
        except CreateUnknown:
            raise
        except ProviderError:  # nothing was changed
            self._machines.end(name)
            raise
        return self._instance(name, endpoint, usd_per_hour=None)

    def destroy(self, instance_id: str) -> bool:
        if instance_id not in self._machines.names() or not self._endpoint_of(instance_id):
            return False
        if self._parks(instance_id):
            with suppress(NotFound):  # who is deleted costs nothing
                self._limit(self._endpoint_of(instance_id), least=0, most=0)
        return self._machines.end(instance_id)

    def close(self) -> None:
        self._api.close()

    def find(self, instance_id: str) -> Endpoint:
        """The endpoint behind a machine. Raises ProviderError."""
        return self._ask(self._endpoint_of(instance_id))

    def workers(self, endpoint: Endpoint) -> Load:
        """Its workers by RunPod's list. Raises ProviderError."""
        return Load.of_workers(self._api.get(f"{_path(endpoint.id)}/workers"))

    # --- what is used
    def _used(self) -> Sequence[str]:
        """The machines to look for: of each endpoint that is not another model's, its last use."""
        latest = self._latest()
        return tuple(name for endpoint, name in latest.items() if endpoint not in self._of_others)

    def _latest(self) -> Mapping[str, str]:
        """Whatever was noted of an endpoint, its last use."""
        noted = [name for name in self._machines.names() if self._endpoint_of(name)]
        noted.sort(key=lambda name: (self._noted_at(name), not self._machines.has_ended(name)))
        return {self._endpoint_of(name): name for name in noted}

    def _note(self, name: str, digest: str) -> None:
        """The new use is there before the old ones are over, so that an open endpoint is never nobody's."""
        at = self._api.said_at if self._api.said_at is not None else self._clock()
        section = self._section
        about = {"endpoint": section.endpoint_id, "park": section.park, "digest": digest, "created_at": at}
        self._machines.begin(name, about)
        for other in self._machines.names():
            if other != name and self._endpoint_of(other) == self._section.endpoint_id:
                self._machines.end(other)

    def _endpoint_of(self, name: str) -> str:
        """Its id; empty for a machine of another backend."""
        return str(self._machines.order(name).get("endpoint") or "")

    def _parks(self, name: str) -> bool:
        """Whether its limits are ours to set; of an endpoint that is no more configured, by what was noted."""
        if self._endpoint_of(name) == self._section.endpoint_id:
            return self._section.park
        return bool(self._machines.order(name).get("park", self._section.park))

    def _noted_at(self, name: str) -> float:
        return float(self._machines.order(name).get("created_at") or 0.0)

    def _seen(self, name: str) -> Instance | None:
        """What is there of a machine; None: it is parked and empty, or not ours to end and we use it no more."""
        parks = self._parks(name)
        if not parks and self._machines.has_ended(name):
            return None
        try:
            endpoint = self.find(name)
            found = self._api.get(f"{_path(endpoint.id)}/workers")
        except NotFound:
            return None
        if parks and endpoint.most == 0 and not found.get("workers"):
            return None
        return self._instance(name, endpoint, usd_per_hour=self._usd_per_hour(billed_gpus(found)))

    def _instance(self, name: str, endpoint: Endpoint, *, usd_per_hour: float | None) -> Instance:
        order = self._machines.order(name)
        return Instance(
            id=name,
            name=name,
            observed=Observed.RUNNING,
            usd_per_hour=usd_per_hour,
            base_url=endpoint.base_url,
            container_up=True,
            created_at=order.get("created_at"),
            gpu=f"endpoint {endpoint.id}",
            digest=str(order.get("digest") or ""),
        )

    def _usd_per_hour(self, gpus: Sequence[tuple[str, int]]) -> float | None:
        """What the workers cost now by list price; None where one of them has none."""
        prices = [(self._price(gpu), count) for gpu, count in gpus]
        if any(price is None for price, _ in prices):
            return None
        return float(sum((price or 0.0) * count for price, count in prices))

    def _price(self, gpu: str) -> float | None:
        if gpu not in self._prices:
            self._prices[gpu] = None
            with suppress(ProviderError):
                price = self._api.get(f"/v2/catalog/gpus/{path_id(gpu)}").get("price")
                found = price.get("serverless") if isinstance(price, dict) else None
                self._prices[gpu] = float(found) if isinstance(found, int | float) and found else None
        return self._prices[gpu]

    # --- RunPod
    def _ask(self, endpoint_id: str) -> Endpoint:
        return Endpoint.read(self._api.get(_path(endpoint_id)))

    def _configured(self) -> Endpoint:
        """The endpoint of the configuration. Raises BadSpec: there is none of that id."""
        try:
            return self._ask(self._section.endpoint_id)
        except NotFound:
            raise BadSpec(
                f"There is no serverless endpoint {self._section.endpoint_id} in this account.",
                hint="Correct `runpod_serverless.endpoint_id` (or RUNPOD_VLLM_ENDPOINT_ID).",
            ) from None

    def _open(self) -> Endpoint:
        section, endpoint = self._section, self._configured()
        if section.park:
            return self._limit(section.endpoint_id, least=section.min_workers, most=section.max_workers)
        if endpoint.most == 0:
            raise BadSpec(
                f"The endpoint {section.endpoint_id} is parked (max workers 0), and `park` is false.",
                hint="Raise its max workers in RunPod's console, or let llmpod do it with `park`.",
            )
        return endpoint

    def _limit(self, endpoint_id: str, *, least: int, most: int) -> Endpoint:
        answer = self._api.change(_path(endpoint_id), {"workers": {"min": least, "max": most}})
        return Endpoint.read(answer)


def _path(endpoint_id: str) -> str:
    return f"/v2/serverless/{path_id(endpoint_id)}"
