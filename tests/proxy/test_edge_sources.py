"""Where requests come from, for all that is counted by it: whoever has one IPv6 address has 2**64 of them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmpod.config import KEYS_FILE, Auth, ProxySettings
from llmpod.config.rates import Per, RateLimit
from llmpod.errors import Unauthorized
from llmpod.observe import open_log
from llmpod.proxy.accounts import Accounts
from llmpod.proxy.ask import Ask, Leave
from llmpod.proxy.gate import Gate, TooManyGuesses, Visitor
from llmpod.proxy.limits import Limiter
from llmpod.proxy.peer import Ends, source_of
from llmpod.proxy.sweep import Door
from tests.proxy.keys import entry, write_keys
from tests.proxy.stub import CHAT

MOST = 10
NEIGHBOURS = [f"2001:db8:1:2:{n:x}::{n:x}" for n in range(30)]
STRANGERS = [f"2001:db8:1:{n:x}::1" for n in range(30)]
OLD = [f"192.0.2.{n}" for n in range(30)]


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:DB8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("::1", "::1"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_what_counts_as_one_source(address: str, source: str) -> None:
    assert source_of(address) == source


def by_the_door(clients: list[str]) -> int:
    door = Door(1000, MOST, say=lambda _: None, clock=time.monotonic)
    inside = [client for client in clients if door.enter(client)]
    for client in inside:
        door.leave(client)
    assert all(door.enter(client) for client in inside), "who left is counted no more"
    return len(inside)


def by_the_limit(clients: list[str], per: Per) -> int:
    log = open_log("ERROR")
    limits = ProxySettings(rate_limits={"*": RateLimit(requests_per_minute=MOST, per=per)})
    limiter = Limiter(limits, Accounts(None, log))
    asks = [Ask("POST", CHAT, CHAT.encode(), [], b"{}", client) for client in clients]
    log.close()
    return [limiter.refusal(ask) for ask in asks].count(None)


@pytest.mark.parametrize(("clients", "served"), [(NEIGHBOURS, MOST), (STRANGERS, 30), (OLD, 30)])
@pytest.mark.parametrize(
    "count",
    [by_the_door, lambda c: by_the_limit(c, Per.ADDRESS), lambda c: by_the_limit(c, Per.CALLER)],
    ids=["door", "address", "caller"],
)
def test_addresses_of_one_network_are_one(
    count: Callable[[list[str]], int], clients: list[str], served: int
) -> None:
    assert count(clients) == served


def test_programs_of_this_machine_are_not_counted_by_source() -> None:
    assert by_the_door(["::1"] * 30) == by_the_door(["127.0.0.1"] * 30) == 30


@pytest.mark.parametrize(("clients", "told"), [(NEIGHBOURS, 20), (STRANGERS, 0), (OLD, 0)])
def test_guesses_from_one_network_are_one_guessers(tmp_path: Path, clients: list[str], told: int) -> None:
    path = tmp_path / KEYS_FILE
    write_keys(path, entry("infer"))
    log = open_log("ERROR")
    gate = Gate(ProxySettings(auth=Auth.KEYS, keys_file=path), log, own={}, clock=lambda: 0.0)
    refused = []
    for client in clients:
        headers = [(b"host", b"localhost"), (b"x-api-key", b"sk-local-wrong")]
        with pytest.raises((Unauthorized, TooManyGuesses)) as caught:
            gate.admit("POST", CHAT, headers, Visitor(Ends(client, 1, "2001:db8::1", 2)))
        refused.append(caught.type)
    log.close()
    assert refused.count(TooManyGuesses) == told


def test_who_takes_turns() -> None:
    """A key, wherever it is used; without one, a network."""

    def asked(client: str, leave: Leave | None = None) -> str:
        return Ask("POST", CHAT, CHAT.encode(), [], b"{}", client, leave=leave or Leave()).turn

    assert asked(NEIGHBOURS[1]) == asked(NEIGHBOURS[2]) != asked(STRANGERS[1])
    assert asked(NEIGHBOURS[1], Leave("key_a")) == asked(STRANGERS[1], Leave("key_a")) == "key_a"
