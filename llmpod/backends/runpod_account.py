"""Not the ledger: what RunPod itself says of the account's money, as far as it says it.

The bill comes from ``GET /v2/billing/pods``; it lags behind, and leaves out what cost nothing. Balance and current
rate exist only in GraphQL (``myself``), which RunPod has announced to retire in early 2027 (release notes): every
way in which that can fail gives "unknown" and a short reason, and unknown is never 0.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import requests
import urllib3.exceptions

from llmpod.backends.runpod_api import USER_AGENT, RunpodApi
from llmpod.bounded import bounded
from llmpod.config import PodConfig
from llmpod.errors import ProviderUnavailable
from llmpod.secret import Secret
from llmpod.text import one_line
from llmpod.web import Session

BALANCE_SECONDS = 5.0
_MAX_BYTES = 2**16
_QUERY = "query { myself { clientBalance currentSpendPerHr spendLimit } }"
_REFUSALS = {
    401: "RunPod's GraphQL refuses the key",
    403: "RunPod's GraphQL refuses the key",
    410: "RunPod has retired its GraphQL API; there is no other way to read the balance",
    429: "too many calls; try again in a minute",
}


@dataclass(frozen=True, slots=True)
class Charge:
    """What one pod cost in one hour, by RunPod's bill: USD, and when the hour began."""

    pod: str
    at: float
    usd: float


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has and spends, in USD; None is unknown, and ``why`` says why something is."""

    usd: float | None = None
    usd_per_hour: float | None = None
    spend_limit: float | None = None
    why: str = ""

    @property
    def hours_left(self) -> float | None:
        """At the current rate; None when that is not known or nothing is spent."""
        if self.usd is None or not self.usd_per_hour or self.usd_per_hour <= 0:
            return None
        return max(0.0, self.usd) / self.usd_per_hour


def billing(api: RunpodApi, since: float, until: float) -> tuple[Charge, ...]:
    """RunPod's bill for all pods of the account, hour by hour.

    Args:
        api: the connection.
        since: from here on (epoch seconds; the hour that holds it).
        until: up to here. Both are sent: a start without an end is refused with 400.

    Raises:
        ProviderError: it does not say, or what it says cannot be read.
    """
    query = {"startTime": _rfc3339(since), "endTime": _rfc3339(until), "bucketSize": "hour"}
    records = api.get("/v2/billing/pods", **query).get("records")
    try:
        return tuple(_charge(record) for record in records or _nothing(records))
    except (KeyError, TypeError, ValueError) as e:
        raise ProviderUnavailable(f"RunPod's bill cannot be read ({type(e).__name__}: {e}).") from None


def charged(charges: tuple[Charge, ...], since: float = 0.0) -> dict[str, float]:
    """USD by pod id, of the hours that began at ``since`` or later."""
    sums: dict[str, float] = {}
    for charge in charges:
        if charge.at >= since:
            sums[charge.pod] = sums.get(charge.pod, 0.0) + charge.usd
    return sums


def balance(config: PodConfig, key: Secret, *, within: float = BALANCE_SECONDS) -> Balance:
    """What the account has and spends. Never raises for what a network or a server does.

    Args:
        config: gives GraphQL's address.
        key: the account's key; sent in the Authorization header only.
        within: seconds for all of it.
    """
    try:
        return bounded(partial(_ask, config.graphql_url, key, within=within), within)
    except TimeoutError:
        return Balance(why=f"RunPod's GraphQL did not answer within {within:g} s")


def _ask(url: str, key: Secret, *, within: float) -> Balance:
    try:
        with Session() as session:
            headers = {"Authorization": f"Bearer {key.reveal().strip()}", "User-Agent": USER_AGENT}
            with session.post(
                url,
                json={"query": _QUERY},
                headers=headers,
                timeout=within,
                allow_redirects=False,
                stream=True,
            ) as response:
                body = response.raw.read(_MAX_BYTES + 1, decode_content=True)
                return _understood(response.status_code, body)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
        return Balance(why=f"RunPod's GraphQL does not answer ({type(e).__name__})")


def _understood(status: int, body: bytes) -> Balance:
    if status in _REFUSALS:
        return Balance(why=_REFUSALS[status])
    document = _document(body)
    if document is None:
        return Balance(why=f"RunPod's GraphQL answered {status} with something that is not JSON")
    problem = _problem(document)
    if status != 200:
        return Balance(why=f"RunPod's GraphQL answered {status}" + (f": {problem}" if problem else ""))
    myself = _mapping(_mapping(document.get("data")).get("myself"))
    usd, rate, limit = (
        _usd(myself.get(name)) for name in ("clientBalance", "currentSpendPerHr", "spendLimit")
    )
    if not problem and None in (usd, rate, limit):
        problem = "it does not say all" if myself else "it does not know this key's account"
    return Balance(usd, rate, limit, f"RunPod's GraphQL: {problem}" if problem else "")


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _problem(document: Mapping[str, Any]) -> str:
    """The first error's message; GraphQL sends errors of the caller with status 200."""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    return one_line(str(first.get("message")), 120) if isinstance(first, dict) else ""


def _charge(record: Mapping[str, Any]) -> Charge:
    usd = _usd(record["totalAmount"])
    if usd is None:
        raise ValueError(f"the amount {record['totalAmount']!r}")
    return Charge(str(record["podId"]), datetime.fromisoformat(record["startTime"]).timestamp(), usd)


def _nothing(records: object) -> tuple[()]:
    """An empty bill is a list, too; anything else says nothing. Raises TypeError."""
    if not isinstance(records, list):
        raise TypeError("it has no `records`")
    return ()


def _usd(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
