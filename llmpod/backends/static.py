"""Not a machine of ours: a model server that somebody else runs, at an address that we are told.

Nothing is created or destroyed. "Create" and "destroy" note that it is used and that it is no more, so that the
lifecycle above is the same as everywhere; whether it answers is the prober's business.
"""

import time
from collections.abc import Callable, Collection, Mapping

from llmpod.backends.machines import Machines
from llmpod.model import Instance, Listing, Observed, Offer, Spec


class StaticServer:
    """One address.

    Args:
        base_url: without ``/v1``.
        machines: where the use of it is noted.
        clock: epoch seconds.
    """

    def __init__(self, base_url: str, machines: Machines, *, clock: Callable[[], float] = time.time) -> None:
        self._base_url = base_url
        self._machines = machines
        self._clock = clock

    def list(self, expect: Collection[str]) -> Listing:  # noqa: ARG002 - nothing here lags
        used = (name for name in self._machines.names() if not self._machines.has_ended(name))
        return Listing(tuple(self._instance(name) for name in used), self._clock())

    def create(
        self,
        spec: Spec,
        offer: Offer,  # noqa: ARG002 - there is one address
        name: str,
        env: Mapping[str, str],  # noqa: ARG002 - it has its own key
        *,
        deadline: float,  # noqa: ARG002 - it goes on without us
    ) -> Instance:
        self._machines.tidy(())
        self._machines.begin(name, {"digest": spec.digest, "created_at": self._clock()})
        return self._instance(name)

    def destroy(self, instance_id: str) -> bool:
        return self._machines.end(instance_id)

    def close(self) -> None:
        """There is nothing to close."""

    def _instance(self, name: str) -> Instance:
        order = self._machines.order(name)
        return Instance(
            id=name,
            name=name,
            observed=Observed.RUNNING,
            usd_per_hour=0.0,
            base_url=self._base_url,
            container_up=True,
            created_at=order.get("created_at"),
            gpu=self._base_url,
            digest=str(order.get("digest") or ""),
            key_optional=True,
        )
