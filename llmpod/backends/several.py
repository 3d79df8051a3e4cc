"""Not a provider: several of them as one, where models run in different ways. One listing, one name, one owner each.

A machine belongs to the backend of the model that its name says. Those of this machine also see what is another
model's, so of each machine only its owner's view counts.
"""

import builtins
from collections.abc import Callable, Collection, Mapping, Sequence

from llmpod.backends import Backend, SomeAway, Speaking
from llmpod.errors import CreateUnknown, ProviderError
from llmpod.model import Instance, Listing, Offer, Spec


class Several:
    """The backends of one installation.

    Args:
        backends: by model; models may share one.
        owner: which model a machine was made for, by its name; None: nobody's.
    """

    def __init__(self, backends: Mapping[str, Backend], owner: Callable[[str], str | None]) -> None:
        self._of_model = backends
        self._owner = owner
        self._seen: dict[str, Backend] = {}

    @property
    def backends(self) -> builtins.list[Backend]:
        """Each once."""
        return list({id(backend): backend for backend in self._of_model.values()}.values())

    def list(self, expect: Collection[str]) -> Listing:
        found, times = dict[str, Instance](), builtins.list[float]()
        self._seen, failed = {}, builtins.list[tuple[Backend, ProviderError]]()
        for backend in self.backends:
            try:
                listing = backend.list(expect)
            except ProviderError as e:
                failed.append((backend, e))
                continue
            times += [listing.at] if listing.at is not None else []
            for seen in listing.instances:
                whose = self._of_model.get(self._owner(seen.name) or "", backend)
                if whose is backend or seen.id not in found:
                    found[seen.id], self._seen[seen.id] = seen, whose
        whole = Listing(tuple(found.values()), times[0] if times else None)
        if len(failed) == len(self.backends):
            raise failed[0][1]
        if failed:
            away = [backend for backend, _ in failed]
            models = frozenset(name for name, backend in self._of_model.items() if backend in away)
            why = " ".join(e.message for _, e in failed)
            said = f"Nothing is known of {', '.join(sorted(models))}: {why}"
            raise SomeAway(said, whole, models, causes=[e for _, e in failed])
        return whole

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        backend = self._of_model.get(self._owner(name) or "")
        if backend is None:
            raise CreateUnknown(f"{name} is of no model that is configured.")
        made = backend.create(spec, offer, name, env, deadline=deadline)
        self._seen[made.id] = backend
        return made

    def destroy(self, instance_id: str) -> bool:
        known = self.of(instance_id)
        if known is not None:
            return known.destroy(instance_id)
        accepted = [backend.destroy(instance_id) for backend in self.backends]
        return any(accepted)

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        """The last lines of a machine's log, oldest first; none where there is no log."""
        backend: object = self.of(instance_id)
        return backend.tail(instance_id, lines) if isinstance(backend, Speaking) else ()

    def of(self, instance_id: str) -> Backend | None:
        """Whose machine this is; None: nobody's that we know of."""
        return self._seen.get(instance_id) or self._of_model.get(self._owner(instance_id) or "")

    def made_for(self, model: str) -> Backend:
        """Who runs a model."""
        return self._of_model[model]

    def close(self) -> None:
        for backend in self.backends:
            backend.close()
