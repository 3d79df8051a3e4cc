"""Not the manager: the proxy's side of the files that lie between the two planes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from llmpod.config.served import identity_of
from llmpod.lifecycle import files
from llmpod.lifecycle.records import end_of
from llmpod.lifecycle.state import Trouble
from llmpod.lifecycle.store import Store
from llmpod.model import Phase, Record, Refusal, Today, Usage
from llmpod.secret import Secret


class UsageWriter:
    """The proxy's side of the usage file."""

    def __init__(self, state_file: Path) -> None:
        self._path = files.private_dir(state_file.parent / ".llmpod" / state_file.stem) / "usage.json"

    def write(self, usage: Mapping[str, Usage], *, durable: bool = False) -> None:
        """Raises StateError when the disk refuses."""
        document = {name: asdict(u) for name, u in usage.items()}
        files.write_atomic(self._path, json.dumps(document), durable=durable)


@dataclass(frozen=True, slots=True, repr=False)
class Target:
    """Where one model answers now, as the proxy needs it. ``base_url`` has no ``/v1``.

    ``retrying``: it failed and is tried again; ``typical_start``: median seconds of its last starts, and how many
    these were; ``bills_requests``: every request may start a worker, which is billed;
    ``outdated``: it is to be replaced, and gets nothing more; ``barred``: why no request may start it.
    """

    model_key: str
    phase: Phase
    name: str
    base_url: str | None
    api_key: Secret | None
    model: str
    identity: str
    served_name: str
    deadline: float | None
    usd_per_hour: float | None
    max_model_len: int | None
    created_at: float | None
    ready_at: float | None
    error: str
    gpu: str = ""
    retrying: bool = False
    typical_start: tuple[float, int] | None = None
    refusal: Refusal | None = None
    bills_requests: bool = False
    outdated: bool = False
    barred: Refusal | None = None

    def __repr__(self) -> str:
        return f"Target({self.model_key}: {self.phase}, {self.base_url})"


class Seen(NamedTuple):
    """What the state file said: the models by name, why the manager's last pass failed, and the day's money."""

    targets: Mapping[str, Target]
    trouble: Trouble | None
    today: Today | None = None


def past_starts(state_file: Path) -> list[dict[str, Any]]:
    """The measured starts, oldest first: ``gpu``, ``model``, ``seconds``; none where there is no history."""
    return Store(state_file).starts()


class Follower:
    """The proxy's side of the state file: read only, never a lock."""

    def __init__(self, state_file: Path) -> None:
        self._store = Store(state_file)

    def read(self) -> Seen:
        """What the file says; nothing when there is none. Raises StateError when it is unreadable."""
        state = self._store.load()
        known = {**{name: Record() for name in state.barred}, **state.records}
        targets = {
            name: replace(self._target(name, record, state.unwoken.get(name)), barred=state.barred.get(name))
            for name, record in known.items()
        }
        return Seen(targets, state.trouble, state.today)

    def _target(self, key: str, record: Record, refusal: Refusal | None) -> Target:
        return Target(
            model_key=key,
            phase=record.phase,
            name=record.name,
            base_url=record.base_url,
            api_key=self._store.server_key(record),
            model=record.model,
            identity=identity_of(record.config) or record.model,
            served_name=record.served_name or record.model,
            deadline=end_of(record),
            usd_per_hour=record.usd_per_hour,
            max_model_len=length if isinstance(length := record.config.get("max_model_len"), int) else None,
            created_at=record.created_at,
            ready_at=record.ready_at,
            error=record.error or record.down_reason,
            gpu=record.gpu,
            retrying=record.next_try_at is not None and not record.down_reason,
            typical_start=self._store.typical_start(record.model),
            refusal=refusal,
            bills_requests=record.config.get("backend") == "runpod_serverless",
            outdated=record.outdated,
        )
