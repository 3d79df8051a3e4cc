"""Not the file: what ``pod_state.json`` says, and how it is spelled there."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from llmpod.lifecycle.typed import typed
from llmpod.model import ProcessId, Record, Refusal, Today

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class ProxyRecord:
    """The proxy that we started: who it is, where it listens, by which token it proves itself."""

    process: ProcessId
    port: int
    token: str
    settings_digest: str
    started_at: float


@dataclass(frozen=True, slots=True)
class ClockMark:
    """When that boot had lasted ``uptime`` seconds, the provider's clock said ``at``."""

    boot: str
    uptime: float
    at: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the last pass failed (an error's ``code`` and words), and since when passes fail for that."""

    code: str
    text: str
    since: float


SaveProxy = Callable[[ProxyRecord], None]


@dataclass(frozen=True, slots=True)
class State:
    """What ``pod_state.json`` holds.

    ``clock_offset`` is by how many seconds the provider's clock was ahead of ours, ``clock_mark`` when it said so by a
    clock that nobody can set; ``refused`` says when which offer could not be had; ``told`` when an alarm was raised,
    by its key, so that it is raised once; ``foreign`` describes the account's machines that are not ours, by id;
    ``account_at`` is when its own figure was last asked for;
    ``unwoken`` says by model why requests could not start it, ``barred`` why they could not if they came now;
    ``today`` is the daily budget, if there is one;
    ``install_id`` is the mark under which machines are made, ``old_ids`` are those from before its secret was lost.
    """

    records: Mapping[str, Record] = field(default_factory=dict)
    proxy: ProxyRecord | None = None
    last_pass: float | None = None
    clock_offset: float = 0.0
    clock_mark: ClockMark | None = None
    refused: Mapping[str, float] = field(default_factory=dict)
    told: Mapping[str, float] = field(default_factory=dict)
    foreign: Mapping[str, str] = field(default_factory=dict)
    account_at: float | None = None
    trouble: Trouble | None = None
    unwoken: Mapping[str, Refusal] = field(default_factory=dict)
    barred: Mapping[str, Refusal] = field(default_factory=dict)
    today: Today | None = None
    install_id: str = ""
    old_ids: tuple[str, ...] = ()

    @property
    def marks(self) -> set[str]:
        """Every install id under which machines were made so far."""
        return {self.install_id, *self.old_ids} - {""}

    def record(self, model: str) -> Record:
        return self.records.get(model, Record())

    def with_record(self, model: str, record: Record) -> "State":
        return replace(self, records={**self.records, model: record})


def encode(state: State) -> dict[str, Any]:
    """The document that is written."""
    return {
        "schema": SCHEMA,
        "install_id": state.install_id,
        "old_ids": list(state.old_ids),
        "last_pass": state.last_pass,
        "clock_offset": state.clock_offset,
        "clock_mark": asdict(state.clock_mark) if state.clock_mark else None,
        "refused": dict(state.refused),
        "told": dict(state.told),
        "foreign": dict(state.foreign),
        "account_at": state.account_at,
        "trouble": asdict(state.trouble) if state.trouble else None,
        "unwoken": {name: asdict(refusal) for name, refusal in state.unwoken.items()},
        "barred": {name: asdict(refusal) for name, refusal in state.barred.items()},
        "today": asdict(state.today) if state.today else None,
        "proxy": asdict(state.proxy) if state.proxy else None,
        "models": {name: asdict(record) for name, record in state.records.items()},
    }


def decode(document: Mapping[str, Any]) -> State:
    """What a document of this schema or an older one says.

    Raises:
        ValueError: it is damaged.
    """
    known = {f.name for f in fields(State)}
    given = {name: value for name, value in document.items() if name in known}
    return typed(State, {**given, "records": document.get("models")})
