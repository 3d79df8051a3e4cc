"""Not a decision: how state, plans and prices look to a person at a terminal, or as JSON to a program."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console

from llmpod.backends.machines import Machines
from llmpod.backends.runpod_serverless_probe import LOAD_FILE
from llmpod.cli import demos
from llmpod.cli.wiring import Plane
from llmpod.errors import StateError
from llmpod.identity import process_id
from llmpod.lifecycle.decide import MIN_RUN_SECONDS
from llmpod.lifecycle.money import dollars
from llmpod.lifecycle.nouns import thing
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.records import SUSPECT_SECONDS, end_of
from llmpod.lifecycle.state import State
from llmpod.lifecycle.supervision import Notes, read_notes
from llmpod.lifecycle.want import BY_HAND
from llmpod.model import Phase, Record, Want
from llmpod.text import duration

STALE_SECONDS = 900.0
ALIVE = frozenset(Phase) - {Phase.STOPPED, Phase.FAILED}


def moment(at: float | None) -> str:
    """Local wall-clock time, with the day when it is not today."""
    if at is None:
        return "-"
    when = datetime.fromtimestamp(at, UTC).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return when.strftime("%H:%M:%S" if when.date() == today else "%Y-%m-%d %H:%M")


def until(record: Record) -> str:
    """``, until 18:05:00``; nothing where nothing limits the run."""
    end = end_of(record)
    return "" if end is None else f", until {moment(end)}"


@dataclass(frozen=True, slots=True)
class Money:
    """What one model's run has cost and can still cost, in USD; None where the price is unknown."""

    spent: float | None
    worst_case: float | None


def money(record: Record, now: float) -> Money:
    """Computed from the billed rate and the pod's own times; loading counts, since it is billed."""
    if record.created_at is None:
        return Money(0.0, 0.0)
    if record.usd_per_hour is None:
        return Money(None, None)
    end = record.ended_at or record.missing_since or now
    spent = (end - record.created_at) * record.usd_per_hour / 3600
    if record.phase not in ALIVE or record.deadline is None:
        return Money(spent, spent)
    return Money(spent, max((record.deadline - record.created_at) * record.usd_per_hour / 3600, spent))


def status_document(plane: Plane) -> dict[str, Any]:
    """What ``status --json`` prints. Field names are stable."""
    state, error = _state(plane)
    now = plane.now(state)
    orders = plane.store.orders()
    return {
        "now": now,
        "models": {
            name: _model_document(state.record(name), orders.get(name), now)
            | {"load": _load(plane, state.record(name))}
            | _configured(plane, name, state.record(name))
            for name in (*plane.config.models, *_removed(plane, state))
        },
        "proxy": {
            "url": plane.proxy.url + "/v1" if plane.proxy else None,
            "order": asdict(orders[PROXY]) if PROXY in orders else None,
            **_proxy_document(plane, state),
        },
        "last_pass": state.last_pass,
        "last_pass_age_seconds": now - state.last_pass if state.last_pass else None,
        "foreign_pods": dict(state.foreign),
        "demos": [
            {"pid": demo.pid, "url": demo.base_url, "model": demo.model}
            for demo in demos.running(plane.config.path)
        ],
        "state_file": str(plane.store.state_file),
        "trouble": asdict(state.trouble) if state.trouble else None,
        "error": error,
    }


def _removed(plane: Plane, state: State) -> list[str]:
    """Models that are configured no more and whose machine is still there."""
    return [n for n, record in state.records.items() if n not in plane.config.models and record.instance_id]


def _configured(plane: Plane, name: str, record: Record) -> dict[str, Any]:
    """What the configuration says of a model, if it does."""
    config = plane.config.models.get(name)
    if config is None:
        return {"removed": True, "heartbeat_seconds": None}
    heartbeat = config.heartbeat_seconds if config.is_rented else None
    return {"removed": False, "model": record.model or config.hub_id, "heartbeat_seconds": heartbeat}


def _proxy_document(plane: Plane, state: State) -> dict[str, Any]:
    """Whether it runs, and how often it crashed under the warden that we know, who may have given it up."""
    warden = state.proxy.process if state.proxy else None
    alive = warden is not None and process_id(warden.pid) == warden
    notes = read_notes(plane.store.directory)
    if notes is None or (alive and warden is not None and notes.warden != warden.pid):
        notes = Notes(warden.pid, warden.pid) if warden is not None else Notes(0)
    return {
        "running": alive and notes.proxy is not None,
        "pid": notes.proxy if alive else None,
        "supervisor": warden.pid if alive and warden is not None else None,
        "crashes": notes.crashes,
        "last_crash": asdict(notes.last_crash) | {"text": str(notes.last_crash)}
        if notes.last_crash
        else None,
        "gave_up": notes.gave_up,
    }


def _state(plane: Plane) -> tuple[State, str]:
    try:
        return plane.store.load(), ""
    except StateError as e:
        return State(), str(e)


def _load(plane: Plane, record: Record) -> dict[str, Any] | None:
    """What the last look at a serverless endpoint counted, and when; None for all else."""
    if record.instance_id is None:
        return None
    return Machines(plane.config.endpoint_notes).document(record.instance_id, LOAD_FILE) or None


def _end_of_run(record: Record) -> float | None:
    """The pod's own switch may come before the order's end, when that is too near for another pod."""
    if (end := end_of(record)) is None or record.switch_at is None or record.instance_id is None:
        return end
    return min(end, record.switch_at) if end - record.switch_at < MIN_RUN_SECONDS else end


def _model_document(record: Record, want: Want | None, now: float) -> dict[str, Any]:
    cost = money(record, now)
    return {
        "phase": record.phase.value,
        "model": record.model,
        "thing": thing(record),
        "pod_id": record.instance_id,
        "pod_name": record.name or None,
        "gpu": record.gpu or None,
        "usd_per_hour": record.usd_per_hour,
        "created_at": record.created_at,
        "ready_at": record.ready_at,
        "deadline": _end_of_run(record),
        "spent_usd": cost.spent,
        "worst_case_usd": cost.worst_case,
        "attempts": record.attempts,
        "next_try_at": record.next_try_at,
        "switch_at": record.switch_at if record.instance_id and end_of(record) is not None else None,
        "possible_orphans": [name for name, at in record.suspects if now - at < SUSPECT_SECONDS],
        "error": record.error,
        "order": {**asdict(want), "direction": want.direction.value} if want else None,
    }


def print_status(plane: Plane, console: Console, *, as_json: bool) -> None:
    """Print the status."""
    document = status_document(plane)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    models = document["models"]
    names, phases = max(map(len, models)), max(len(model["phase"]) for model in models.values())
    for name, model in models.items():
        _print_model(console, f"{name:{names}}  {model['phase']:{phases}}", model, document["now"])
    proxy = document["proxy"]
    running = f"runs at {proxy['url']} (pid {proxy['pid']})" if proxy["running"] else "does not run"
    console.print(f"proxy    {running}")
    if crash := proxy["last_crash"]:
        often = "too often: GIVEN UP for some minutes" if proxy["gave_up"] else f"{proxy['crashes']} time(s)"
        text = f"         it crashed {often}, last {moment(crash['at'])}: {crash['text']}"
        console.print(text, style="red" if proxy["gave_up"] else "yellow", highlight=False, markup=False)
    age = document["last_pass_age_seconds"]
    never = "never ran: nothing was started from here yet (`up` starts it)"
    console.print(f"watchdog {f'last pass {duration(age)} ago' if age is not None else never}")
    if age is not None and age > STALE_SECONDS and any(m["pod_id"] for m in models.values()):
        console.print("         what stands above may be out of date; see `doctor`", style="yellow")
    for pod_id, text in document["foreign_pods"].items():
        described = f" ({text})" if text else ""
        console.print(f"other    {pod_id}{described}: not of this installation, left alone", markup=False)
    for demo in document["demos"]:
        text = f"demo     runs at {demo['url']} with the model {demo['model']} (pid {demo['pid']})"
        console.print(f"{text}; its own, not among the above", highlight=False, markup=False)
    if trouble := document["trouble"]:
        text = f"FAILING  since {moment(trouble['since'])}: {trouble['text']}"
        console.print(text, style="red", highlight=False, markup=False)
    if document["error"]:
        console.print(document["error"], style="red", highlight=False, markup=False)


def _ordered(order: dict[str, Any] | None) -> str:
    """The order in force, and why it was given where that is more than somebody's word."""
    if order is None:
        return "no orders"
    because = "" if order["reason"] == BY_HAND else f": {order['reason']}"
    return f"ordered {order['direction']} by {order['by']} {moment(order['at'])}{because}"


def _print_model(console: Console, head: str, model: dict[str, Any], now: float) -> None:
    gone = "; removed from the configuration: ends when it has answered" if model["removed"] else ""
    line = f"{head}  {model['model']}  ({_ordered(model['order'])}{gone})"
    console.print(line, style="bold", highlight=False, markup=False)
    free = model["usd_per_hour"] == 0
    if model["pod_id"]:
        price = "" if free else f", {dollars(model['usd_per_hour'])}/h"
        console.print(f"{model['thing']:<8} {model['pod_id']} on {model['gpu']}{price}", markup=False)
    if load := model["load"]:
        console.print(f"load     {load['said']} ({duration(now - load['at'])} ago)", highlight=False)
    if model["created_at"] and not free:
        console.print(
            f"cost     {dollars(model['spent_usd'])} so far, at most {dollars(model['worst_case_usd'])}"
        )
    if model["deadline"] is not None and model["phase"] in ALIVE:
        left = model["deadline"] - now
        when = f"in {duration(left)}"
        if left <= 0:
            ending = model["phase"] == Phase.TERMINATING
            when = "being ended" if ending else "OVERDUE: no pass has ended it; see `doctor`"
        console.print(f"ends     {moment(model['deadline'])}, {when}")
    if model["switch_at"] and model["phase"] in ALIVE:
        quiet = model["heartbeat_seconds"]
        unless = f", or after {duration(quiet)} without a pass or a request" if quiet else ""
        console.print(f"switch   it ends itself {moment(model['switch_at'])}{unless}", highlight=False)
        if model["deadline"] and model["deadline"] - model["switch_at"] >= MIN_RUN_SECONDS:
            console.print(
                f"         a new {model['thing']} takes over then for the rest of the run", highlight=False
            )
    for orphan in model["possible_orphans"]:
        text = f"watch    {orphan}: not listed, its end not confirmed; it is ended when it shows up"
        console.print(text, highlight=False, markup=False)
    if model["error"]:
        console.print(f"note     {model['error']}", highlight=False, markup=False)
