"""Not bugs of ours: bugs that others had in the wild, as changes of one place each in a copy of our source.

The snippet must stand in the source exactly once; when it does not, the source has moved on and the control must be
written anew, for a control that changes nothing proves nothing.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.source import ROOT
from tests.sweep.cells import Cell, fault, scenario
from tests.sweep.managers import Kill

_COPIED = ("llmpod", "manage_pod.py", "proxy_fastapi.py")


@dataclass(frozen=True)
class Mutant:
    """A bug, and the cells of the sweep that must notice it.

    Args:
        name: what is wrong.
        file: the source file.
        old, new: the change; ``also``: another one in the same file.
        cells: where it must show; one is enough.
        syscalls: whether only a kill at a syscall shows it, so that strace is needed.
    """

    name: str
    file: str
    old: str
    new: str
    cells: tuple[Cell, ...]
    syscalls: bool = False
    also: tuple[str, str] | None = None

    def apply(self, root: Path) -> None:
        """Change the copy in ``root``. Raises AssertionError when a snippet is not there exactly once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        for old, new in ((self.old, self.new), *((self.also,) if self.also else ())):
            found = text.count(old)
            assert found == 1, f"stale: {self.file} has {found} times:\n{old}"
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def copy_of_the_source(root: Path) -> Path:
    """All that manage_pod.py needs, in ``root``, with the compiled files of what will not be changed."""
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name)
        else:
            shutil.copy2(source, root / name)
    return root


def _killed(situation: str, trouble: str, moments: Sequence[Kill], *, index: int = 0) -> tuple[Cell, ...]:
    return tuple(Cell(scenario(situation), fault(trouble), {index: kill}) for kill in moments)


def _calm(situation: str, *troubles: str) -> tuple[Cell, ...]:
    return tuple(Cell(scenario(situation), fault(trouble)) for trouble in troubles)


# Around the moments that show it (point 5; write 2 and 5), so that a pass with a step more is still struck.
_POINTS = tuple(Kill(n) for n in range(4, 8))
_WRITES = tuple(Kill(n, "write") for n in range(1, 7))

MUTANTS = (
    Mutant(
        "saves after the create, not before",
        "llmpod/lifecycle/act.py",
        "        self.memory.keep(model, _described(intent, managed))\n",
        "        self.memory.state = self.memory.state.with_record(model, _described(intent, managed))\n",
        _killed("create", "listing lag", _POINTS),
        also=(
            "        self.memory.keep(model, record)\n        return deadline\n",
            "        self.memory.state = self.memory.state.with_record(model, record)\n        return deadline\n",
        ),
    ),
    Mutant(
        "asks again after a 500",
        "llmpod/lifecycle/act.py",
        """            except NoCapacity as e:
                self.report.say(""",
        """            except (NoCapacity, CreateUnknown) as e:
                self.report.say(""",
        _calm("create", "500 after create"),
    ),
    Mutant(
        "takes a 404 for the end of a pod",
        "llmpod/lifecycle/act.py",
        """            if accepted:
                self.memory.keep_if_possible(""",
        """            if target:
                self.memory.keep_if_possible(""",
        _calm("shutdown", "404 at delete, then an empty list and 404"),
    ),
    Mutant(
        "believes one empty list",
        "llmpod/lifecycle/decide.py",
        "    if recent or now - since < min(MISSING_GRACE_SECONDS, policy.create_grace_seconds):\n",
        "    if recent:\n",
        _calm("replace", "empty list and 404"),
    ),
    Mutant(
        "creates under a name that it did not save",
        "llmpod/lifecycle/act.py",
        "        made = self.backend.create(spec, offer, name, secret, deadline=deadline)\n",
        "        made = self.backend.create(spec, offer, name + 'f', secret, deadline=deadline)\n",
        _calm("create", "500 after create", "500 after create, listing lag"),
    ),
    Mutant(
        "has no patience with a lagging list",
        "llmpod/lifecycle/decide.py",
        "    return record.intent_at is not None and now < record.intent_at + grace\n",
        "    return record.intent_at is None and now < grace\n",
        _calm("create", "500 after create, listing lag"),
    ),
    Mutant(
        "does not write down that the run has expired",
        "llmpod/lifecycle/orders.py",
        "            self._actor.store.order_instead({model: want}, {model: order})\n",
        "            pass\n",
        _calm("terminate", "no fault"),
    ),
    Mutant(
        "knows only the pods that it remembers",
        "llmpod/lifecycle/match.py",
        "    return [i for i in instances if i.id not in known]\n",
        "    return [i for i in instances if not i.id and i.id not in known]\n",
        _calm("state lost", "no fault"),
    ),
    Mutant(
        "writes its state in place",
        "llmpod/lifecycle/files.py",
        '    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")\n    try:\n'
        "        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL |",
        "    temporary = path\n    try:\n"
        "        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC |",
        _killed("create", "no fault", _WRITES),
        syscalls=True,
    ),
)
