"""Not an invoice: what pods cost by bucket of time, as GET /v2/billing/pods tells it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from llmpod.sim.clock import rfc3339
from llmpod.sim.pods import Pod
from llmpod.sim.problems import Problem, invalid

_SIZES = ("hour", "day", "week", "month", "year")
_DEFAULT_SPAN = timedelta(days=30)


def pod_billing(query: dict[str, str], pods: list[Pod], now: float) -> dict[str, Any]:
    """The answer to a billing request. Raises Problem: 422 malformed, 400 for `lastN` with a time, or half a range."""
    size = query.get("bucketSize", "day")
    if size not in _SIZES:
        raise invalid("query.bucketSize: value must be one of 'hour', 'day', 'week', 'month', 'year'")
    start, end = _window(query, size, datetime.fromtimestamp(now, UTC))
    wanted = [pod for pod in pods if query.get("podId") in (None, pod.id)]
    records = [record for pod in wanted for record in _records(pod, size, (start, end), now)]
    totals = {name: sum(record[name] for record in records) for name in _amounts(0.0, is_gpu=True)}
    asked = {
        "startTime": _text(start),
        "endTime": _text(end),
        "bucketSize": size,
        "podId": query.get("podId"),
    }
    return {
        "records": records,
        "metadata": {
            "query": asked,
            "recordCount": len(records),
            "uniquePodCount": len({record["podId"] for record in records}),
            "totals": totals,
        },
    }


def _window(query: dict[str, str], size: str, now: datetime) -> tuple[datetime, datetime]:
    if "lastN" in query:
        if "startTime" in query or "endTime" in query:
            raise Problem(400, "lastN and startTime/endTime are mutually exclusive")
        if not query["lastN"].isdecimal() or int(query["lastN"]) < 1:
            raise invalid("query.lastN: must be an integer of at least 1")
        start = _floor(now, size)
        for _ in range(min(int(query["lastN"]), 10_000) - 1):
            start = _floor(start - timedelta(seconds=1), size)
        return start, _next(_floor(now, size), size)
    if "startTime" in query and "endTime" not in query:
        raise Problem(400, "startTime requires endTime")
    start = _moment(query, "startTime") or now - _DEFAULT_SPAN
    end = _moment(query, "endTime") or now
    floor = _floor(end, size)
    return _floor(start, size), floor if floor == end else _next(floor, size)


def _moment(query: dict[str, str], name: str) -> datetime | None:
    if name not in query:
        return None
    try:
        value = datetime.fromisoformat(query[name])
    except ValueError:
        raise invalid(f"query.{name}: must be an RFC 3339 timestamp") from None
    if value.tzinfo is None:
        raise invalid(f"query.{name}: must be an RFC 3339 timestamp")
    return value.astimezone(UTC)


def _records(pod: Pod, size: str, window: tuple[datetime, datetime], now: float) -> Iterator[dict[str, Any]]:
    """One record for each bucket in which the pod cost something; empty ones are left out (doc)."""
    first = datetime.fromtimestamp(pod.created_at, UTC)
    start, end = _floor(max(window[0], first), size), min(window[1], datetime.fromtimestamp(now, UTC))
    while start < end:
        after = _next(start, size)
        usd = pod.usd(min(after.timestamp(), now)) - pod.usd(start.timestamp())
        if usd > 0:
            amounts = _amounts(usd, is_gpu=pod.gpu is not None)
            yield {"startTime": _text(start), "endTime": _text(after), "podId": pod.id, **amounts}
        start = after


def _amounts(usd: float, *, is_gpu: bool) -> dict[str, float]:
    return {
        "totalAmount": usd,
        "gpuAmount": usd if is_gpu else 0.0,
        "cpuAmount": 0.0 if is_gpu else usd,
        "diskAmount": 0.0,
    }


def _floor(moment: datetime, size: str) -> datetime:
    hour = moment.replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    floors = {
        "hour": hour,
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
        "year": day.replace(month=1, day=1),
    }
    return floors[size]


def _next(floor: datetime, size: str) -> datetime:
    """The start of the bucket after the one that starts here."""
    beyond = {"hour": 1 / 24, "day": 1, "week": 7, "month": 31, "year": 366}[size]
    return _floor(floor + timedelta(days=beyond), size)


def _text(moment: datetime) -> str:
    return rfc3339(moment.timestamp())
