"""The random worlds of test_world.py with a proxy that starts and stops the model, beside people and the clock."""

from contextlib import suppress
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from llmpod.errors import StateError
from llmpod.lifecycle.share import UsageWriter
from llmpod.lifecycle.wish import Terms
from llmpod.model import Usage
from tests.lifecycle.test_world import EFFECTS, LifecycleMachine
from tests.lifecycle.world import MODEL


class WishingMachine(LifecycleMachine):
    """The same with a proxy that wishes: it starts and stops the model as it likes, beside people and the clock."""

    terms = Terms(on_request=True, idle_seconds=1e9)
    usage = Usage()

    @rule(wake=st.booleans(), crash_at=st.none() | EFFECTS)
    def the_proxy_wishes(self, wake: bool, crash_at: int | None) -> None:  # noqa: FBT001 - as above
        world = self.world
        at = world.now + world.wrong_by
        said = self.usage
        self.usage = replace(said, at=at, wake_wanted=at) if wake else replace(said, at=at, rest_wanted=at)
        with suppress(StateError):
            UsageWriter(world.store.state_file).write({MODEL: self.usage})
        world.pass_(crash_at=crash_at)
        world.now += 1.0


WishingMachine.TestCase.settings = settings(LifecycleMachine.TestCase.settings, max_examples=15)
TestRandomWorldsWithWishes = WishingMachine.TestCase
