"""Not REST: the one question for which RunPod still needs GraphQL, what the account has and spends (facts 2).

Only `myself` with its plain fields is known; anything else is refused as the real server refuses an unknown field.
Errors of the caller come with status 200, a retired API with 410, a missing key as `myself: null`.
"""

import json
import re
from typing import Any

from llmpod.sim.world import World

Answer = tuple[int, dict[str, Any]]
RETIRED: Answer = (410, {"errors": [{"message": "The GraphQL API has been retired."}]})
TROUBLE: Answer = (
    200,
    {
        "errors": [
            {
                "message": "Something went wrong. Please try again later or contact support.",
                "path": ["myself"],
                "extensions": {"code": "INTERNAL_SERVER_ERROR"},
            }
        ],
        "data": None,
    },
)
_MYSELF = re.compile(r"(?:query\b[^{]*)?\{\s*myself\s*\{([\w\s,]*)\}\s*\}")


def answer(body: bytes, world: World, *, keyed: bool) -> Answer:
    """Status and body for one query; `keyed` says whether a key came with it."""
    if world.behavior.graphql_retired:
        return RETIRED
    try:
        query = json.loads(body)["query"]
    except (ValueError, KeyError, TypeError):
        return 400, {
            "errors": [{"message": "POST body missing, invalid Content-Type, or JSON object has no keys."}]
        }
    if "__schema" in str(query):
        return 400, _refusal("GraphQL introspection is not allowed", "INTROSPECTION_DISABLED")
    found = _MYSELF.fullmatch(str(query).strip())
    if found is None:
        return 400, _refusal(f"Syntax Error or unknown field: {str(query)[:40]!r}", "GRAPHQL_PARSE_FAILED")
    wanted, known = re.findall(r"\w+", found[1]), _account(world)
    for name in wanted:
        if name not in known:
            text = f'Cannot query field "{name}" on type "User".'
            return 400, _refusal(text, "GRAPHQL_VALIDATION_FAILED")
    return 200, {"data": {"myself": {name: known[name] for name in wanted} if keyed else None}}


def _account(world: World) -> dict[str, Any]:
    now, behavior = world.clock.now(), world.behavior
    running = sum(pod.cost for pod in world.pods if pod.running(now))
    balance = behavior.balance_usd
    return {
        "id": "user_simulated",
        "email": "somebody@example.com",
        "clientBalance": None if balance is None else balance - world.spent(),
        "currentSpendPerHr": running + behavior.other_usd_per_hour,
        "spendLimit": behavior.spend_limit_usd,
    }


def _refusal(message: str, code: str) -> dict[str, Any]:
    return {"errors": [{"message": message, "extensions": {"code": code}}]}
