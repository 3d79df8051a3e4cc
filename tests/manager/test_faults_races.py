"""Two managers at once (F31), a thousand times: each pair meets on real files and the kernel's own locks.

Whole processes, fifty at once, are in test_life.py; here two forked ones meet again and again at the same instant,
which costs a hundredth of that.
"""

import multiprocessing
import os
import secrets
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from llmpod.errors import Busy
from llmpod.lifecycle.act import Actor
from llmpod.lifecycle.ledger import FILE_NAME, Ledger
from llmpod.lifecycle.purse import Purse
from llmpod.lifecycle.reconcile import Reconciler
from llmpod.lifecycle.store import Store
from llmpod.model import Health, Instance, Listing, Observed, Offer, Phase, Spec
from llmpod.secret import Secret
from tests.lifecycle.world import MANAGED, MODEL

RACES = 1000
MANAGERS = 2


class Directory:
    """A provider whose pods are files, so that processes share it; a pod's file holds its name."""

    def __init__(self, pods: Path) -> None:
        self._pods = pods

    def list(self, expect: Collection[str]) -> Listing:
        return Listing(tuple(_instance(path) for path in self._pods.iterdir()))

    def create(
        self, spec: Spec, offer: Offer, name: str, env: Mapping[str, str], *, deadline: float
    ) -> Instance:
        path = self._pods / secrets.token_hex(7)
        path.write_text(name, encoding="ascii")
        return _instance(path)

    def destroy(self, instance_id: str) -> bool:
        raise AssertionError("nothing was ordered down")

    def close(self) -> None:
        """Nothing to close."""

    def check(self, seen: Instance, api_key: Secret | None, served_name: str, *, was_ready: bool) -> Health:
        return Health(Phase.LOADING, "not yet")


def _instance(path: Path) -> Instance:
    return Instance(path.name, path.read_text(encoding="ascii"), Observed.RUNNING)


def one_manager(home: Path) -> None:
    """What a pass of cron does, from the lock on."""
    provider, store = Directory(home / "pods"), Store(home / "pod_state.json")
    try:
        with store.lock():
            purse = Purse(Ledger(store.directory / FILE_NAME), None, most_usd_per_hour=None)
            actor = Actor(store, provider, provider, purse=purse, clock=time.time, point=lambda _: None)
            report = Reconciler(actor, {MODEL: MANAGED}).run()
            assert report.error is None, report.lines
    except Busy:
        return


def many_managers(homes: Collection[Path], barrier: Barrier) -> None:
    for home in homes:
        barrier.wait(30)
        one_manager(home)


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of fsyncs say nothing about locks."""
    memory = Path("/dev/shm")  # noqa: S108 - a private directory is made in it
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="llmpod-test-") as home:
        yield Path(home)


def test_two_managers_at_once_never_make_two_pods(quick_disk: Path) -> None:
    homes = [quick_disk / str(number) for number in range(RACES)]
    for home in homes:
        (home / "pods").mkdir(parents=True)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(MANAGERS)
    managers = [fork.Process(target=many_managers, args=(homes, barrier)) for _ in range(MANAGERS)]
    for manager in managers:
        manager.start()
    for manager in managers:
        manager.join(110)
    assert [manager.exitcode for manager in managers] == [0] * MANAGERS
    made = [len(list((home / "pods").iterdir())) for home in homes]
    assert made == [1] * RACES, f"{made.count(0)} times none, {sum(n > 1 for n in made)} times two"
