"""Not a pass: ends every pod that bears our mark, with no state file, no lock and no questions of policy."""

import argparse
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from llmpod.backends import Backend, SomeAway
from llmpod.cli.command import Command, Invocation
from llmpod.cli.providers import backend_of, with_removed
from llmpod.config import Config
from llmpod.errors import BadCredentials, Busy, Declined, ProviderError, Refused, StateError
from llmpod.lifecycle import match
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.nouns import thing_of, things_of
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.records import ended
from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.want import BY_HAND
from llmpod.model import Direction, Instance, Phase, Want

LIMIT_SECONDS = 300.0
LOCK_SECONDS = 100.0  # a pass that hangs in a call to RunPod gives up within that
PAUSE_SECONDS = 2.0
IN_CONSOLE = "end the pods whose names begin with `llmpod-` by hand at https://console.runpod.io/pods."


@dataclass(slots=True)
class _Sweep:
    """Lists and deletes until nothing that matches is left.

    Args:
        backend: the provider.
        ours: whether a machine is to be ended.
        expect: ids that are looked up one by one where the list lacks them.
        say: prints a line.
        sleep: waits so many seconds.
        clock: monotonic seconds.
    """

    backend: Backend
    ours: Callable[[Instance], bool]
    say: Callable[[str], None]
    expect: frozenset[str] = frozenset()
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    ended: set[str] = field(default_factory=set)
    others: list[str] = field(default_factory=list)

    def until_empty(self) -> bool:
        """True when two listings in a row showed nothing; False when time ran out first."""
        limit, empty = self.clock() + LIMIT_SECONDS, 0
        while empty < 2:
            if self.clock() > limit:
                return False
            left = self._once()
            empty = empty + 1 if left == 0 else 0
            if empty < 2:
                self.sleep(PAUSE_SECONDS)
        return True

    def _once(self) -> int | None:
        """How many there were; None when nobody knows."""
        try:
            return self._end_all(self.backend.list(self.expect).instances)
        except Refused as e:
            raise _in_console(e) from None
        except SomeAway as e:  # what is in reach ends; of the rest nobody knows
            self.say(str(e))
            if self._end_all(e.listing.instances) == 0 and e.final is not None:
                raise _in_console(e.final) from None
        except ProviderError as e:
            self.say(str(e))
        return None

    def _end_all(self, there: Sequence[Instance]) -> int:
        """How many of them are ours."""
        found = [i for i in there if self.ours(i)]
        self.others = [i.name for i in there if i not in found and match.of_any_installation(i)]
        for instance in found:
            self.end(instance.id, instance.name)
        return len(found)

    def end(self, pod_id: str, name: str) -> None:
        """Order the end of one machine."""
        if pod_id not in self.ended:
            self.say(f"terminating {pod_id} ({name})")
        try:
            if self.backend.destroy(pod_id):
                self.ended.add(pod_id)
        except ProviderError as e:
            self.say(f"{pod_id}: {e}")


def _in_console(error: ProviderError) -> ProviderError:
    """One that asking again does not mend, with what is left to do."""
    return type(error)(error.message, hint=f"{error.hint} Until then: {IN_CONSOLE}".lstrip())


def panic(call: Invocation) -> int:
    """End all of ours.

    Raises:
        Declined: pods of other installations were meant and nobody said yes.
        BadCredentials: there is no key.
    """
    loaded = call.config(salvage=True)
    try:
        key = call.key(loaded)
    except BadCredentials as e:
        raise BadCredentials(e.message, hint=f"Without one, {IN_CONSOLE}") from None
    store = _store(loaded, call)
    every = bool(call.options.every_installation)
    if every:
        _agree(call)
    if store is not None:
        loaded, key = with_removed(loaded, store, key, call.environ)
    backend = backend_of(loaded, key)
    try:
        if store is not None:
            _order_down(store, loaded, call)
        ours = match.of_any_installation if every else _of(store)
        sweep = _Sweep(backend, ours, call.say)
        gone = sweep.until_empty()
        if gone and store is not None:
            gone = _again_under_lock(sweep, store, loaded.models)
    finally:
        backend.close()
    if not gone:
        by_hand = ", or end them at https://console.runpod.io/pods" if loaded.common.is_billed else ""
        call.say(f"Some {things_of(loaded.common.backend)} are left. Run it again{by_hand}.")
        return 75
    whose = "of any llmpod installation" if every else "of this installation"
    call.say(
        f"{len(sweep.ended)} terminated; no {thing_of(loaded.common.backend)} {whose} is listed any more"
    )
    if sweep.others:
        names = ", ".join(sweep.others[:5])
        call.say(f"Of other llmpod installations: {names}. `panic --every-installation` ends these too.")
    return 0


def _store(loaded: Config, call: Invocation) -> Store | None:
    try:
        return Store(loaded.state_file)
    except StateError as e:
        call.say(str(e))
        return None


def _order_down(store: Store, loaded: Config, call: Invocation) -> None:
    """Cron and the proxy must not start again what is ended here."""
    want = Want(Direction.DOWN, at=time.time(), by="panic", reason=BY_HAND)
    try:
        store.order(dict.fromkeys((*loaded.models, PROXY), want))
    except (StateError, Busy) as e:
        call.say(f"The order cannot be written down, so keep cron from running: {e}")


def _of(store: Store | None) -> Callable[[Instance], bool]:
    """Ours by name, or by an id in our files whatever the pod was renamed to."""
    if store is None:
        raise StateError(
            "Nobody knows which pods are of this installation: its directory cannot be used.",
            hint="`panic --every-installation` ends all pods that any llmpod has made in this account.",
        )
    state, bought = State(), set[str]()
    with suppress(StateError):
        state = store.load()
    with suppress(StateError):
        bought = set(Ledger(store.directory / FILE_NAME).read().machines)
    ids, marks = {*bought, *(record.instance_id for record in state.records.values())}, store.marks(state)
    return lambda seen: seen.id in ids or match.made_by(marks, seen)


def _again_under_lock(sweep: _Sweep, store: Store, reached: Collection[str]) -> bool:
    """Whoever held the lock may have been in the middle of a create call: look again when nobody can be.

    Args:
        sweep: the same.
        store: the files.
        reached: the models whose machines were looked for.

    Returns:
        False when that cannot be known, or a creation got no clear answer and may still show up.
    """
    try:
        with store.lock(wait_seconds=LOCK_SECONDS):
            state = store.load()
            records = list(state.records.values())
            sweep.expect = frozenset(record.instance_id for record in records if record.instance_id)
            for pod_id in sweep.expect - sweep.ended:  # a list may lag behind a creation
                sweep.end(pod_id, "remembered")
            gone = sweep.until_empty()
            if gone:
                _forget(store, state, reached)
    except Busy as e:
        sweep.say(f"{e.message} It may be creating a pod.")
        return False
    except StateError:  # nobody remembers anything; what is listed is gone
        return True
    for name in (away := [n for n, r in state.records.items() if r.instance_id and n not in reached]):
        sweep.say(f"{name} was removed from the configuration and may still run; nothing here can end it")
    unclear = [r.name for r in records if r.phase in (Phase.INTENT, Phase.UNKNOWN)]
    for name in unclear:
        sweep.say(f"The creation of {name} got no clear answer; it may still show up.")
    return gone and not unclear and not away


def _forget(store: Store, state: State, reached: Collection[str]) -> None:
    """What was ended here is not a machine to look after: the next start is a fresh one."""
    over = {
        model: ended(replace(record, delete_accepted=True), Phase.STOPPED, time.time() + state.clock_offset)
        for model, record in state.records.items()
        if record.instance_id and model in reached
    }
    store.save(replace(state, records={**state.records, **over}))


def _agree(call: Invocation) -> None:
    if call.options.yes:
        return
    call.say("This ends what EVERY llmpod installation has started, in this account or on this machine.")
    try:
        answer = input("Type yes: ")
    except EOFError:
        answer = ""
    if answer.strip().lower() != "yes":
        raise Declined("Nothing was done.", hint="Use --yes where nobody can answer.")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--every-installation",
        action="store_true",
        help="also what other llmpod installations have started in this account or on this machine",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")


COMMAND = Command(
    "panic",
    "terminate all that this installation has started now, with no state file, lock or question",
    panic,
    _arguments,
)
