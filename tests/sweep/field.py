"""Not a test: where cells are played. One simulator and one zygote; each cell is a new user on a wiped account.

A cell: prepare a situation, order a fault, call manage_pod.py and kill it, let cron's passes follow, and judge. Every
call is a process, every kill a SIGKILL, every file and socket real.
"""

import json
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmpod.sim.launch import Simulator
from tests.support.install import FAST, Install
from tests.support.source import ROOT
from tests.support.wait import eventually
from tests.sweep.cells import Cell, Outcome
from tests.sweep.managers import Ended, Kill, Managers
from tests.sweep.scenarios import Fault, Scenario

STEP = 30.0  # seconds between two passes of cron; the bars below are in simulated seconds, too
MOST_PASSES = 40
ORPHAN_SECONDS = 120.0
OVERRUN_SECONDS = 60.0
GRACE = 60.0
_FOREIGN = "llmpod-0123abcd-456789-0123456789ab"


class Field:
    """Plays cells one after another. Use `open_field`."""

    def __init__(self, root: Path, directory: Path, sim: Simulator) -> None:
        self.sim = sim
        self._directory = directory
        self._managers = Managers(root, sim)
        self._count = 0
        self.reset()

    def close(self) -> None:
        self._managers.close()

    # --- a new user on a wiped account
    def reset(self) -> None:
        self.sim.reset()
        self._count += 1
        home = self._directory / f"{self._count}"
        (home / "files").mkdir(parents=True, mode=0o700)
        self._home = home
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "TZ": "UTC"}
        self.install = Install(home / "files", self.sim, environ)
        self.install.write(
            create_grace_seconds=GRACE,
            poll_interval_seconds=5.0,
            restart_backoff_seconds=None,
            heartbeat_seconds=None,  # nobody but the manager may end a pod here
        )

    def manage(self, *arguments: str, kill: Kill | None = None, cold: bool = False) -> Ended:
        eventually(self._servers_listen, within=20)  # the simulator is told that this takes no time
        argv = [*self.install.argv()[2:], *arguments]
        if cold:
            return self._managers.from_nothing(argv, self.install.environ, kill)
        return self._managers.call(argv, self.install.environ, self._home, kill)

    def until_ready(self) -> None:
        eventually(self._ready_after_a_pass, within=30)

    def _ready_after_a_pass(self) -> bool:
        self.manage()
        return self._state().get("phase") == "ready"

    # --- playing
    def moments(self, scenario: Scenario, fault: Fault) -> dict[int, list[Kill]]:
        """All kills that an undisturbed run of this scenario offers, by the number of the call."""
        self.reset()
        scenario.prepare(self)
        fault.begin(self.sim)
        found: dict[int, list[Kill]] = {}
        for index in range(MOST_PASSES):
            eventually(self._servers_listen, within=20)
            arguments = [*self.install.argv()[2:], *(scenario.arguments if index == 0 else ())]
            _, found[index] = self._managers.trace(arguments, self.install.environ, self._home)
            if self._is_settled(scenario, fault):
                return found
            self.sim.advance(STEP)
        raise AssertionError(f"{scenario.name} / {fault.name} does not settle")

    def play(self, cell: Cell) -> Outcome:
        """One cell from its beginning to the last bill."""
        self.reset()
        self.install.console(
            "POST", "/v2/pods", {"name": _FOREIGN, "image": "x/y:1", "gpu": {"id": "NVIDIA L4", "count": 1}}
        )
        cell.scenario.prepare(self)
        cell.fault.begin(self.sim)
        outcome = Outcome(cell)
        try:
            self._settle(cell, outcome)
            self._end(cell, outcome)
        except AssertionError as e:
            outcome.wrong.append(str(e))
        outcome.wrong += self._too_many(cell.scenario)
        outcome.left_over = len(list(self.install.directory.rglob(".*.*.*")))
        return outcome

    def _settle(self, cell: Cell, outcome: Outcome) -> None:
        begun, back = self._now(), None
        due, last = sorted(cell.kills.items(), key=lambda item: item[0]), max(cell.kills, default=0)
        for index in range(MOST_PASSES):
            kill = due[0][1] if due and due[0][0] <= index else None
            arguments = cell.scenario.arguments if index == 0 else ()
            ended = self._call(*arguments, kill=kill, cold=cell.cold)
            outcome.kills += ended.killed
            due = due[ended.killed :]
            back = None if ended.killed else back or self._now()
            self._readable(cell)
            if back is not None:
                self._in_time(back)
            if index >= last and self._is_settled(cell.scenario, cell.fault):
                outcome.settled_after = self._now() - begun
                return
            self.sim.advance(STEP)
        raise AssertionError(f"stuck: {len(self._alive())} pods, {self._state()}")

    def _end(self, cell: Cell, outcome: Outcome) -> None:
        """Ten calm minutes change nothing; then the end comes, by deadline or by hand; then nobody pays."""
        pods = len(self._alive())
        for _ in range(2):
            self.sim.advance(300)
            self._call()
            assert len(self._alive()) == pods, f"{len(self._alive())} pods ten minutes later, not {pods}"
        if pods and cell.scenario.pods and random.Random(str(cell)).random() < 0.5:
            self._expire()
        elif not cell.scenario.sticky:
            assert self._call("--shutdown").code == 0, "--shutdown does not see its end"
        assert self._alive() == [], f"a pod is left at the end: {self._state()}"
        self._nobody_pays()

    def _expire(self) -> None:
        deadline = self._state()["deadline"]
        self.sim.advance(max(0.0, deadline - self._now()))
        for _ in range(5):
            self._call()
            self._in_time(deadline)
            self.sim.advance(STEP)
        assert self._state()["phase"] == "stopped", self._state()

    def _nobody_pays(self) -> None:
        ours = {pod["id"] for pod in self._ours()}
        before = self._bill(ours)
        (self.install.directory / "pod_state.json").unlink()  # the order to stay down does not stand in there
        for _ in range(2):
            self.sim.advance(1800)
            self._call()
        assert abs(self._bill(ours | {pod["id"] for pod in self._ours()}) - before) < 1e-9, (
            "somebody still pays"
        )
        foreign = [pod for pod in self.sim.alive() if pod["name"] == _FOREIGN]
        assert len(foreign) == 1, "a foreign pod was touched"

    def _call(self, *arguments: str, kill: Kill | None = None, cold: bool = False) -> Ended:
        """A call that must end calmly unless it is killed, and whose word must be true."""
        ended = self.manage(*arguments, kill=kill, cold=cold)
        assert ended.killed or ended.code in _CALM, f"{arguments} exited {ended.code}: {ended.said}"
        if arguments == ("--shutdown",) and ended.code == 0:
            assert self._alive() == [], f"a pod lives although it said: {ended.said}"
        return ended

    # --- judging
    def _in_time(self, back: float) -> None:
        """What an unhindered manager must have done by now, counted from when it was ``back``."""
        now, record, alive = self._now(), self._state(), self._alive()
        if now - back > ORPHAN_SECONDS:
            orphans = [pod["id"] for pod in alive if pod["id"] != record.get("instance_id")]
            assert not orphans, f"{orphans} unknown for {now - back:.0f} s: {record}"
        gone = record.get("phase") == "stopped" and record.get("ended_at") is not None
        assert not (gone and alive), f"{alive[0]['id']} lives and is taken for gone: {record}"
        deadline = record.get("deadline")
        if deadline and now > max(deadline, back) + OVERRUN_SECONDS:
            assert not alive, f"{len(alive)} pods live {now - deadline:.0f} s past the deadline"

    def _readable(self, cell: Cell) -> None:
        for name in ("pod_state.json", ".llmpod/pod_state/orders.json"):
            path = self.install.directory / name
            if path.exists() and cell.scenario.name != "state torn":
                try:
                    json.loads(path.read_text(encoding="utf-8"))
                except ValueError:
                    raise AssertionError(f"{name} is torn") from None

    def _pods_wanted(self, scenario: Scenario) -> int:
        if scenario.pods is not None:
            return scenario.pods
        orders = json.loads(
            (self.install.directory / ".llmpod/pod_state/orders.json").read_text(encoding="utf-8")
        )
        return int(orders["default"]["direction"] == "up")

    def _is_settled(self, scenario: Scenario, fault: Fault) -> bool:
        alive, record = self._alive(), self._state()
        if fault.respected and record.get("phase") == "failed":
            return not alive
        if not self._pods_wanted(scenario):
            return not alive and record.get("phase") in ("stopped", "failed")
        ready = len(alive) == 1 and record.get("phase") == "ready" and record["instance_id"] == alive[0]["id"]
        return ready and alive[0]["status"] == "RUNNING" and self._made_as_configured(record)

    def _made_as_configured(self, record: Mapping[str, Any]) -> bool:
        return bool(record["config"].get("max_model_len") == self.install.config.get("max_model_len"))

    def _too_many(self, scenario: Scenario) -> list[str]:
        lives = sorted((p["created_at"], p["terminated_at"] or float("inf")) for p in self._ours())
        if any(later[0] < earlier[1] for earlier, later in pairwise(lives)):
            return ["two pods at once"]
        return [f"{len(lives)} pods one after the other"] if len(lives) > scenario.made else []

    def _ours(self) -> list[dict[str, Any]]:
        return [pod for pod in self.sim.state()["pods"] if pod["name"] != _FOREIGN]

    def _alive(self) -> list[dict[str, Any]]:
        return [pod for pod in self._ours() if pod["terminated_at"] is None]

    def _servers_listen(self) -> bool:
        return all(pod["listening"] for pod in self._alive() if pod["status"] == "RUNNING")

    def _bill(self, ids: set[str]) -> float:
        bill = self.sim.bill()["pods"]
        return float(sum(bill[id_] for id_ in ids))

    def _now(self) -> float:
        return float(self.sim.state()["now"])

    def _state(self) -> dict[str, Any]:
        """What pod_state.json says of the model; empty when it is not there, or torn."""
        try:
            return self.install.state()
        except (FileNotFoundError, ValueError, KeyError):
            return {}


# Exit codes that say "not now": trouble with the provider, no capacity, state to be rebuilt.
_CALM = (0, 69, 75, 78)


@contextmanager
def open_field(directory: Path, root: Path = ROOT) -> Iterator[Field]:
    """A field with a simulator of its own.

    Args:
        directory: for the users' files.
        root: the source tree under test.
    """
    with Simulator.start(pods="inline", behavior=FAST) as sim:
        place = Field(root, directory, sim)
        try:
            yield place
        finally:
            place.close()
