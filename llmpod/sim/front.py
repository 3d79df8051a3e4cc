"""Not a route: what a call meets before one, in the real API's order: size, Cloudflare, key, rights, rates."""

import hmac
import json
import secrets
from collections import Counter
from email.utils import formatdate
from typing import Any

from llmpod.sim.feed import Request
from llmpod.sim.problems import NO_RIGHT, Problem
from llmpod.sim.wire import Headers
from llmpod.sim.world import World

LARGEST = 102_400
_WINDOWS = (("minute", 60), ("hour", 3600), ("day", 86400))
CLOUDFLARE = b"error code: 1010"


class Front:
    """The checks before the routes, and the headers of every answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._counts: Counter[tuple[str, int]] = Counter()

    def check_size(self, body: bytes) -> None:
        """Raises Problem 413: before authentication, and again for a body that a template made too large."""
        if len(body) > LARGEST:
            raise Problem(413, f"request body must not exceed {LARGEST} bytes")

    def dislikes(self, request: Request) -> bool:
        """Whether Cloudflare turns this agent away before RunPod sees it."""
        agent = request.headers.get("user-agent", "").lower()
        return any(agent.startswith(start.lower()) for start in self._world.behavior.blocked_agents)

    def admit(self, request: Request) -> str | None:
        """The id of the pod whose own key this is, or None for the account's key. Raises Problem: 401, 403, 429."""
        pod = self._whose(request)
        self._count()
        scope = self._world.behavior.key_scope
        if pod is None and (scope == "none" or (scope == "read" and request.method != "GET")):
            raise Problem(403, NO_RIGHT)
        return pod

    def _whose(self, request: Request) -> str | None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Problem(401, "missing bearer token")
        if hmac.compare_digest(given.encode(), self._world.key.encode()):
            return None
        pod = next(
            (pod.id for pod in self._world.pods if hmac.compare_digest(given.encode(), pod.key.encode())),
            None,
        )
        if pod is None:
            raise Problem(401, "invalid bearer token")
        return pod

    def _count(self) -> None:
        now = self._world.clock.now()
        for name, width in _WINDOWS:
            self._counts[name, int(now // width)] += 1
        over = [(name, wait) for name, left, wait in self._left() if left < 0]
        if over and self._world.behavior.enforce_rate_limits:
            name, wait = over[-1]
            raise too_many(name, wait)

    def _left(self) -> list[tuple[str, int, int]]:
        """(window, requests that remain, seconds until it starts anew); negative when over the limit."""
        now = self._world.clock.now()
        limits = self._world.behavior.rate_limits
        return [
            (name, limit - self._counts[name, int(now // width)], int(width - now % width) + 1)
            for (name, width), limit in zip(_WINDOWS, limits, strict=True)
        ]

    def headers(self, *, admitted: bool) -> list[tuple[str, str]]:
        """The simulator's own time and `x-request-id` on every answer; the windows once the key was accepted."""
        now = formatdate(self._world.clock.now(), usegmt=True)
        headers = [("date", now), ("x-request-id", secrets.token_hex(16))]
        if admitted:
            limits = zip(_WINDOWS, self._world.behavior.rate_limits, strict=True)
            headers += [
                (
                    "RateLimit",
                    ", ".join(f'"{name}";r={max(0, left)};t={wait}' for name, left, wait in self._left()),
                ),
                (
                    "RateLimit-Policy",
                    ", ".join(f'"{name}";q={limit};w={width}' for (name, width), limit in limits),
                ),
            ]
        return headers


def too_many(window: str = "minute", wait: int = 1) -> Problem:
    """429 as recorded."""
    return Problem(429, f"rate limit exceeded for the {window} window", headers=(("Retry-After", str(wait)),))


def parsed(body: bytes) -> Any:
    """The JSON of a request. Raises Problem 400."""
    try:
        return json.loads(body)
    except ValueError:
        raise Problem(400, "request body is not valid JSON") from None


def problem_headers(problem: Problem) -> Headers:
    """Content type and whatever the problem brings along."""
    return [("content-type", "application/problem+json"), *problem.headers]
