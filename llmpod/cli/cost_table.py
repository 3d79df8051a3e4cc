"""Not figures: how those of ``cost`` look to a person, on a terminal or in a file."""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from llmpod.cli.show import moment
from llmpod.lifecycle.money import dollars
from llmpod.text import duration

BAR_CELLS = 40
Figures = dict[str, Any]


def print_figures(document: Figures, console: Console) -> None:
    """Print the document of :func:`llmpod.cli.cost_figures.figures`."""
    for name, text in _lines(document):
        console.print(Text.assemble((f"{name:15}", "bold"), text), highlight=False)
    if document["models"]:
        console.print(_by_model(document["models"]))
    if document["live"]:
        console.print(_live(document["live"], document["at"]))
    if not document["ledger"]["machines"]:
        text = "Nothing was started from here yet, so there are no days to show. Demos are not counted."
        console.print(text)
    elif any(day["usd"] or day["unknown_hours"] for day in document["days"]):
        console.print(_chart(document["days"], console))
    else:
        console.print("Nothing cost anything in the last 14 days.", highlight=False)
    for text in _notes(document):
        console.print(text, style="bold red", highlight=False, markup=False)


def _lines(document: Figures) -> Iterator[tuple[str, str]]:
    limits = {limit["kind"]: limit for limit in (document["budget"] or {"limits": ()})["limits"]}
    yield "today", _spent(document["day"], limits.get("per_day"))
    yield "this month", _spent(document["month"], limits.get("per_month"))
    yield "worst case", _worst_case(document["worst_case"], runs=bool(document["live"]))
    yield "budget", _budget(document["budget"])
    yield "cache", _cache(document["cache"])
    if not document["billed"]["applies"]:
        return
    yield "RunPod's bill", _billed(document["billed"])
    yield "account", _account(document["account"])
    stray = document["unexplained"]["stray_usd_per_hour"]
    if stray is not None:
        yield "unexplained", f"{dollars(max(0.0, stray))}/h of what RunPod charges now"
    else:
        yield "unexplained", f"unknown ({document['unexplained']['why'] or 'a listed pod has no price'})"


def _spent(period: Figures, limit: Figures | None) -> str:
    of = f" of {dollars(limit['usd'])} ({limit['share']:.0%})" if limit else ""
    return f"{dollars(period['usd'])}{of}{_unknown(period['unknown_hours'])}"


def _unknown(hours: float) -> str:
    return f" and {hours:.1f} h of pods whose price nobody knows" if hours else ""


def _worst_case(worst: Figures, *, runs: bool) -> str:
    if worst["unknown"]:
        return f"unknown: no price or deadline of {', '.join(worst['unknown'])}"
    if worst["until"] is None:
        return "what runs is free, and has no end" if runs else "nothing runs"
    return f"{dollars(worst['usd'])} more until {moment(worst['until'])}"


def _budget(budget: Figures | None) -> str:
    if budget is None:
        return "none is set (budget.per_day_usd, budget.per_month_usd)"
    words = {"per_day": "today", "per_month": "this month"}[budget["binding"]]
    if budget["exhausted"]:
        renews = next(limit["renews_at"] for limit in budget["limits"] if limit["kind"] == budget["binding"])
        return f"used up {words}; it renews {moment(renews)}"
    end = f", which lasts until {moment(budget['deadline'])}" if budget["deadline"] else ""
    return f"{dollars(budget['left_usd'])} left {words}{end}"


def _cache(cache: Figures) -> str:
    if cache["answers"] is None:
        return f"unknown ({cache['why']})"
    since = f"{cache['answers']} answers without the model in {duration(cache['since_seconds'])}"
    if cache["usd"] is None:
        return f"{since}; what that saved is unknown ({cache['why']})"
    worked = f"at most {duration(cache['model_seconds'])} of a pod's work, {dollars(cache['usd'])}"
    return f"{since}: saved {worked} (estimate)"


def _billed(billed: Figures) -> str:
    own = f"own figure {dollars(billed['own_usd'])} until {moment(billed['until'])}"
    if billed["usd"] is None:
        return f"unknown ({billed['why']}); {own}"
    difference = billed["difference_usd"]
    side = "more" if difference > 0 else "less"
    gap = f"{dollars(abs(difference))} {side} than billed" if abs(difference) >= 0.005 else "the same"
    return f"{dollars(billed['usd'])} this month; {own}: {gap} (the bill lags behind)"


def _account(account: Figures) -> str:
    if account["balance_usd"] is None:
        return f"balance unknown ({account['why']})"
    hours = account["hours_left"]
    lasts = f", {duration(hours * 3600)} at {dollars(account['usd_per_hour'])}/h" if hours is not None else ""
    return f"{dollars(account['balance_usd'])} left{lasts}"


def _by_model(models: Sequence[Figures]) -> Table:
    table = Table(title="by model", title_justify="left")
    table.add_column("model", overflow="fold")
    for column in ("today", "this month", "price unknown"):
        table.add_column(column, justify="right")
    for model in models:
        hours = f"{model['unknown_hours']:.1f} h" if model["unknown_hours"] else ""
        table.add_row(
            Text(model["model"] or "unknown"), dollars(model["day_usd"]), dollars(model["month_usd"]), hours
        )
    return table


def _live(live: Sequence[Figures], now: float) -> Table:
    table = Table(title="running now", title_justify="left")
    table.add_column("pod", no_wrap=True)  # to be copied
    for column in ("GPU", "model"):
        table.add_column(column, overflow="fold")
    for column in ("per hour", "for", "so far", "until"):
        table.add_column(column, justify="right")
    for pod in live:
        table.add_row(
            Text(pod["pod_id"]),
            Text(pod["gpu"] or "unknown"),
            Text(pod["model"] or "unknown"),
            dollars(pod["usd_per_hour"]),
            duration(now - pod["since"]),
            dollars(pod["usd"]),
            moment(pod["deadline"]),
        )
    return table


def _chart(days: Sequence[Figures], console: Console) -> Table:
    """A bar a day; plain characters where nobody draws, as in a file or a mail from cron."""
    table = Table(
        title="last 14 days (UTC)", title_justify="left", box=None, padding=(0, 1), show_header=False
    )
    plain = not console.is_terminal or console.options.ascii_only
    most = max(day["usd"] for day in days) or 1.0
    for day in days:
        marks = " ?" if day["unknown_hours"] else ""
        label = f"{date.fromisoformat(day['date']):%a %d %b}"
        table.add_row(label, dollars(day["usd"]) + marks, _bar(day["usd"], most, plain=plain))
    return table


def _bar(usd: float, most: float, *, plain: bool) -> RenderableType:
    if plain:
        return "#" * max(round(usd / most * BAR_CELLS), 1 if usd else 0)
    return Bar(most, 0, usd, width=BAR_CELLS, color="green")


def _notes(document: Figures) -> Iterator[str]:
    """What a person should look at."""
    yield from document["unexplained"]["alarms"]
    yield from document["problems"]
    if damaged := document["ledger"]["damaged_lines"]:
        yield f"{damaged} damaged line(s) of the ledger are not counted."
