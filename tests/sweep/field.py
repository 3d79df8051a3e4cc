"""Not a test: where cells are played. One simulator and one zygote; each cell is a new user on a wiped account.

A cell: prepare a situation, order a fault, call manage_pod.py and kill it, let cron's passes follow, and judge. Every
call is a process, every kill a SIGKILL, every file and socket real.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llmpod.sim.launch import Simulator
from tests.support.install import FAST, Install
from tests.support.ramdisk import quick_directory
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


@dataclass(frozen=True)
class Sight:
    """The account at one moment: asked for once after each call, for the asking costs as much as a tenth of it."""

    now: float
    ours: list[dict[str, Any]]
    foreign: int

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Sight":
        ours = [pod for pod in state["pods"] if pod["name"] != _FOREIGN]
        foreign = [pod for pod in state["pods"] if pod["name"] == _FOREIGN and pod["terminated_at"] is None]
        return cls(float(state["now"]), ours, len(foreign))

    @property
    def alive(self) -> list[dict[str, Any]]:
        return [pod for pod in self.ours if pod["terminated_at"] is None]

    @property
    def servers_listen(self) -> bool:
        return all(pod["listening"] for pod in self.alive if pod["status"] == "RUNNING")


class Field:
    """Plays cells one after another. Use `open_field`."""

    def __init__(self, root: Path, directory: Path, sim: Simulator) -> None:
        self.sim = sim
        self._directory = directory
        self._managers = Managers(root, sim)
        self._count = 0
        self._home = directory / "nobody"
        self.reset()
        self._rehearse()

    def close(self) -> None:
        self._managers.close()

    # --- a new user on a wiped account
    def reset(self) -> None:
        self.sim.reset()
        shutil.rmtree(self._home, ignore_errors=True)  # memory is no place for thousands of users
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

    def _rehearse(self) -> None:
        """A first user, of whom nothing is left but what the zygote knows by heart."""
        for arguments in ((), (), ("--shutdown",)):
            code = self._managers.rehearse([*self.install.argv()[2:], *arguments], self.install.environ)
            assert code == 0, f"{arguments} exited {code} in the rehearsal"
        self.reset()

    def manage(self, *arguments: str, kill: Kill | None = None, cold: bool = False) -> Ended:
        self._let_servers_listen()
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
            self._let_servers_listen()
            arguments = [*self.install.argv()[2:], *(scenario.arguments if index == 0 else ())]
            _, found[index] = self._managers.trace(arguments, self.install.environ, self._home)
            if self._is_settled(scenario, fault, self.look()):
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
        begun, back = self.look().now, None
        due, last = sorted(cell.kills.items(), key=lambda item: item[0]), max(cell.kills, default=0)
        for index in range(MOST_PASSES):
            kill = due[0][1] if due and due[0][0] <= index else None
            arguments = cell.scenario.arguments if index == 0 else ()
            ended = self._call(*arguments, kill=kill, cold=cell.cold and index < 2)
            outcome.kills += ended.killed
            due = due[ended.killed :]
            sight = self.look()
            back = None if ended.killed else back or sight.now
            self._readable(cell)
            if back is not None:
                self._in_time(back, sight)
            if index >= last and self._is_settled(cell.scenario, cell.fault, sight):
                outcome.settled_after = sight.now - begun
                return
            self.sim.advance(STEP)
        raise AssertionError(f"stuck: {len(self.look().alive)} pods, {self._state()}")

    def _end(self, cell: Cell, outcome: Outcome) -> None:
        """Ten calm minutes change nothing; then the end comes, by deadline or by hand; then nobody pays."""
        pods = len(self.look().alive)
        for _ in range(2):
            self.sim.advance(300)
            self._call()
            later = len(self.look().alive)
            assert later == pods, f"{later} pods ten minutes later, not {pods}"
        if pods and cell.scenario.pods and random.Random(str(cell)).random() < 0.5:
            self._expire()
        elif not cell.scenario.sticky:
            assert self._call("--shutdown").code == 0, "--shutdown does not see its end"
        assert self.look().alive == [], f"a pod is left at the end: {self._state()}"
        self._nobody_pays()

    def _expire(self) -> None:
        deadline = self._state()["deadline"]
        self.sim.advance(max(0.0, deadline - self.look().now))
        over = False
        for _ in range(5):
            self._call()
            sight = self.look()
            self._in_time(deadline, sight)
            if over:
                break  # the pass after the end left it at that
            over = self._state()["phase"] == "stopped" and not sight.alive
            self.sim.advance(STEP)
        assert self._state()["phase"] == "stopped", self._state()

    def _nobody_pays(self) -> None:
        ours = {pod["id"] for pod in self.look().ours}
        before = self._bill(ours)
        (self.install.directory / "pod_state.json").unlink()  # the order to stay down does not stand in there
        for _ in range(2):
            self.sim.advance(1800)
            self._call()
        sight = self.look()
        now_ours = ours | {pod["id"] for pod in sight.ours}
        assert abs(self._bill(now_ours) - before) < 1e-9, "somebody still pays"
        assert sight.foreign == 1, "a foreign pod was touched"

    def _call(self, *arguments: str, kill: Kill | None = None, cold: bool = False) -> Ended:
        """A call that must end calmly unless it is killed, and whose word must be true."""
        ended = self.manage(*arguments, kill=kill, cold=cold)
        assert ended.killed or ended.code in _CALM, f"{arguments} exited {ended.code}: {ended.said}"
        if arguments == ("--shutdown",) and ended.code == 0:
            assert self.look().alive == [], f"a pod lives although it said: {ended.said}"
        return ended

    # --- judging
    def _in_time(self, back: float, sight: Sight) -> None:
        """What an unhindered manager must have done by now, counted from when it was ``back``."""
        now, record, alive = sight.now, self._state(), sight.alive
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

    def _is_settled(self, scenario: Scenario, fault: Fault, sight: Sight) -> bool:
        alive, record = sight.alive, self._state()
        if fault.respected and record.get("phase") == "failed":
            return not alive
        if not self._pods_wanted(scenario):
            return not alive and record.get("phase") in ("stopped", "failed")
        ready = len(alive) == 1 and record.get("phase") == "ready" and record["instance_id"] == alive[0]["id"]
        return ready and alive[0]["status"] == "RUNNING" and self._made_as_configured(record)

    def _made_as_configured(self, record: Mapping[str, Any]) -> bool:
        return bool(record["config"].get("max_model_len") == self.install.config.get("max_model_len"))

    def _too_many(self, scenario: Scenario) -> list[str]:
        lives = sorted((p["created_at"], p["terminated_at"] or float("inf")) for p in self.look().ours)
        if any(later[0] < earlier[1] for earlier, later in pairwise(lives)):
            return ["two pods at once"]
        return [f"{len(lives)} pods one after the other"] if len(lives) > scenario.made else []

    def look(self) -> Sight:
        return Sight.of(self.sim.state())

    def _let_servers_listen(self) -> None:
        """The simulator is told that this takes no time."""
        eventually(lambda: self.look().servers_listen, within=20)

    def _bill(self, ids: set[str]) -> float:
        bill = self.sim.bill()["pods"]
        return float(sum(bill[id_] for id_ in ids))

    def _state(self) -> dict[str, Any]:
        """What pod_state.json says of the model; empty when it is not there, or torn."""
        try:
            return self.install.state()
        except (FileNotFoundError, ValueError, KeyError):
            return {}


# Exit codes that say "not now": trouble with the provider, no capacity, state to be rebuilt.
_CALM = (0, 69, 75, 78)


@contextmanager
def open_field(sim: Simulator, root: Path = ROOT) -> Iterator[Field]:
    """A field whose users' files are kept in memory: an fsync is half of what a pass waits for.

    Args:
        sim: the account; nobody else may use it meanwhile.
        root: the source tree under test.
    """
    with quick_directory() as directory, closing(Field(root, Path(directory), sim)) as field:
        yield field


def start_account() -> Simulator:
    """An account in which machines take no time."""
    return Simulator.start(pods="inline", behavior=FAST)
