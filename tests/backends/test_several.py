"""Several backends as one: each machine is its owner's, and a name says whose it is."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from llmpod.backends import SomeAway
from llmpod.backends.several import Several
from llmpod.errors import CreateUnknown, ProviderUnavailable
from llmpod.model import Instance, Listing, Observed, Offer, Spec

BOTH = {"a-1": "a-1", "b-1": "b-1"}
SPEC = Spec("org/m", "org/m", "", (), 0, 0, (Offer("here"),))


@dataclass
class Place:
    """A provider of machines in memory; what it sees of others' it shows in its own way."""

    name: str
    at: float | None = None
    alive: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    fails: bool = False
    closed: int = 0

    def list(self, expect: Collection[str]) -> Listing:
        if self.fails:
            raise ProviderUnavailable("away")
        return Listing(
            tuple(Instance(id_, name, Observed.RUNNING, gpu=self.name) for id_, name in self.alive.items()),
            self.at,
        )

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        self.alive[name] = name
        return Instance(name, name, Observed.RUNNING, gpu=self.name)

    def destroy(self, instance_id: str) -> bool:
        self.ended.append(instance_id)
        return self.alive.pop(instance_id, None) is not None

    def tail(self, instance_id: str, lines: int) -> Sequence[str]:
        return (f"{instance_id} in {self.name}",)

    def close(self) -> None:
        self.closed += 1


def of_name(*models: str) -> Callable[[str], str | None]:
    """Names here begin with their model's."""
    return lambda name: next((model for model in models if name.startswith(model)), None)


def test_what_two_see_is_its_owners_and_goes_to_it() -> None:
    one, two = (
        Place("one", alive={"a-1": "a-1", "b-1": "b-1"}),
        Place("two", at=5.0, alive={"a-1": "a-1", "b-1": "b-1"}),
    )
    both = Several({"a": one, "b": two}, of_name("a", "b"))
    listing = both.list(())
    assert {i.id: i.gpu for i in listing.instances} == {"a-1": "one", "b-1": "two"}
    assert listing.at == 5.0, "the clock of the one that has one"
    assert both.destroy("b-1")
    assert (one.ended, two.ended) == ([], ["b-1"])
    assert both.tail("a-1", 3) == ("a-1 in one",)


def test_a_machine_is_made_where_its_model_runs() -> None:
    one, two = Place("one"), Place("two")
    both = Several({"a": one, "b": two, "c": two}, of_name("a", "b", "c"))
    assert both.create(SPEC, SPEC.offers[0], "c-1", {}, deadline=1.0).gpu == "two"
    assert both.create(SPEC, SPEC.offers[0], "a-1", {}, deadline=1.0).gpu == "one"
    with pytest.raises(CreateUnknown):
        both.create(SPEC, SPEC.offers[0], "x-1", {}, deadline=1.0)
    both.close()
    assert (one.closed, two.closed) == (1, 1), "each once, though two models share one"


def test_what_nobody_owns_is_ended_wherever_it_is() -> None:
    one, two = Place("one"), Place("two", alive={"lost": "lost"})
    both = Several({"a": one, "b": two}, of_name("a", "b"))
    assert both.destroy("lost")
    both.list(())
    assert not both.destroy("never there")


def test_of_an_incomplete_list_nothing_is_concluded() -> None:
    one, two = Place("one", fails=True), Place("two", at=5.0, alive={"b-1": "b-1"})
    both = Several({"a": one, "b": two, "c": one}, of_name("a", "b", "c"))
    with pytest.raises(SomeAway, match="of a, c: away") as caught:
        both.list(())
    assert caught.value.models == {"a", "c"}
    assert [i.id for i in caught.value.listing.instances] == ["b-1"]
    assert caught.value.listing.at == 5.0
    two.fails = True
    with pytest.raises(ProviderUnavailable, match=r"^away$"):
        both.list(())
