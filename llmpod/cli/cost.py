"""Not a pass: ``cost`` reads the ledger and asks RunPod and the proxy what they know. It changes nothing.

Without a key, or without a network, the ledger's figures stand alone, and the rest is said to be unknown.
"""

import json
from dataclasses import replace

from llmpod.backends.runpod_account import Balance, balance, billing
from llmpod.cli import demos
from llmpod.cli.command import Command, Invocation, json_flag
from llmpod.cli.cost_figures import Inside, Outside, figures
from llmpod.cli.cost_table import print_figures
from llmpod.cli.saved import Saved, saved
from llmpod.cli.wiring import Plane
from llmpod.errors import BadCredentials, ProviderError, StateError
from llmpod.lifecycle import match
from llmpod.lifecycle.book import due, tenants
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.spending import month_of
from llmpod.lifecycle.state import State
from llmpod.model import Instance
from llmpod.secret import Secret


def run(call: Invocation) -> int:
    """Print what was spent, what it can come to, and how that compares.

    Raises:
        StateError: the ledger is unreadable.
        ConfigError: the configuration is wrong.
    """
    key = _key(call)
    with call.plane(offline=not isinstance(key, Secret)) as plane:
        state, problem = _state(plane)
        outside = Outside(at=plane.now(state), saved=_spared(plane), bills=plane.config.common.is_billed)
        if isinstance(key, Secret):
            outside = _asked(plane, key, outside)
        else:
            outside = replace(outside, no_list=key, no_bill=key, balance=Balance(why=key))
        document = figures(_read(plane, state, outside, problem), outside, plane.config.common)
    if call.options.json:
        print(json.dumps(document, indent=2))
    else:
        print_figures(document, call.console)
    return 0


def _spared(plane: Plane) -> Saved:
    """By our own proxy; a demo that listens in its place counts for itself."""
    common = plane.config.common
    if any(demo.port == common.proxy_port for demo in demos.running(plane.config.path)):
        return Saved(why=f"a demo listens on port {common.proxy_port}; what it spares is not counted here")
    return saved(common, plane.store.proxy_key)


def _key(call: Invocation) -> Secret | str:
    """The key, or why there is none: most of ``cost`` needs none. Raises ConfigError."""
    try:
        return call.key(call.config())
    except BadCredentials as e:
        return e.message


def _asked(plane: Plane, key: Secret, outside: Outside) -> Outside:
    """Who cannot be asked is passed over; where the list does not come, the bill would not come either."""
    try:
        listing = plane.backend.list(())
        outside = replace(outside, listed=listing.instances, at=listing.at or outside.at)
    except ProviderError as e:
        outside = replace(outside, no_list=e.message, no_bill=e.message)
    pods = plane.pods
    if pods is None:
        none = f"the backend {plane.config.common.backend} sends no bill"
        if plane.config.common.is_billed:
            none = "RunPod's bill for endpoints is not read here; see its console"
        return replace(outside, no_bill=none, balance=Balance(why=none))
    outside = replace(outside, balance=balance(plane.config.common, key))
    if outside.no_list:
        return outside
    try:
        charges = billing(pods.api, month_of(outside.at)[0], outside.at)
        return replace(outside, charges=charges)
    except ProviderError as e:
        return replace(outside, no_bill=e.message)


def _state(plane: Plane) -> tuple[State, str]:
    """The ledger's figures stand without the state; only deadlines are missing then."""
    try:
        return plane.store.load(), ""
    except StateError as e:
        return State(), str(e)


def _read(plane: Plane, state: State, outside: Outside, problem: str) -> Inside:
    """Our own files, and in the ledger what the listing has just shown; nothing is written."""
    book, marks = Ledger(plane.store.directory / FILE_NAME).read(), plane.store.marks(state)
    known = {*book.machines, *(r.instance_id for r in state.records.values() if r.instance_id)}
    ours: list[Instance] = []
    if outside.listed is not None:
        ours = [seen for seen in outside.listed if seen.id in known or match.made_by(marks, seen)]
        book = book.with_lines(due(book, ours, tenants(state.records), now=outside.at))
    ids = frozenset({*known, *(seen.id for seen in ours)})
    return Inside(book, state.records, ids, (problem,) if problem else ())


COMMAND = Command("cost", "what was spent, what is left, and what it can come to", run, json_flag)
