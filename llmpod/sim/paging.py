"""Not a query engine: cuts one page out of the list of pods, and reads the cursor of the next."""

import base64
import binascii
from typing import Any

from llmpod.sim.problems import invalid

_MARK = "pods:"


def page_of(pods: list[dict[str, Any]], query: dict[str, str], *, most: int, short: bool) -> dict[str, Any]:
    """One page, newest first, and where the next one starts. Raises Problem 422 for a foreign cursor or bad limit.

    Args:
        pods: all pods that show.
        query: `limit` and `cursor`.
        most: the server's own limit of a page.
        short: leave out the last pod of a page that is followed by another.
    """
    size = min(_limit(query), max(1, most))
    rest = _after(pods, query)
    page = rest[:size]
    if short and len(rest) > size > 1:
        page.pop()
    more = len(rest) > len(page)
    cursor = _cursor(page[-1]) if more else None
    return {"pods": page, "pagination": {"nextCursor": cursor, "hasNextPage": more}}


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit", "1000")
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise invalid("query.limit: must be an integer from 1 to 1000")
    return int(text)


def _cursor(pod: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(f"{_MARK}{pod['createdAt']}:{pod['id']}".encode()).decode().rstrip("=")


def _after(pods: list[dict[str, Any]], query: dict[str, str]) -> list[dict[str, Any]]:
    """What is older than the cursor's pod, be that gone or not."""
    if "cursor" not in query:
        return pods
    given = query["cursor"]
    try:
        text = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid("query.cursor: malformed cursor") from None
    moment, _, pod_id = text.removeprefix(_MARK).rpartition(":")
    if not text.startswith(_MARK) or not moment:
        raise invalid("query.cursor: the cursor is not of this operation")
    ids = [pod["id"] for pod in pods]
    if pod_id in ids:
        return pods[ids.index(pod_id) + 1 :]
    return [pod for pod in pods if pod["createdAt"] < moment]
