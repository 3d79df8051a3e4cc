"""Not the lifecycle: ways to run a model, each behind one protocol of four methods.

A backend holds no opinion about what should exist. It lists, creates once, destroys once, and says clearly
which of the three outcomes a create had.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

from llmpod.config import Config, Secret
from llmpod.model import Instance, Listing, Offer, Spec


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


def open_backend(config: Config, key: Secret) -> Backend:
    """The backend that the configuration names.

    Args:
        config: the configuration.
        key: the provider's key.
    """
    from llmpod.backends.runpod_pod import RunpodPods

    return RunpodPods(config.common, key)
