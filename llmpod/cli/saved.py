"""Not a measurement of money: what the running proxy's cache has spared the model, from the proxy's own counters.

An estimate, and it says so: each answer from the cache (or shared with a call that was under way) counts as long as
the model's mean answer. A model answers several requests side by side, so the true figure is rather lower; failed
calls are quick and count as answers, which lowers it, too. It is worth money only for a machine that would otherwise
have run for longer. The proxy counts from its own start; nothing older is known.
"""

import http.client
import re
from dataclasses import dataclass

from llmpod.cli import own
from llmpod.config import Auth, PodConfig
from llmpod.secret import Secret

PATIENCE_SECONDS = 3.0
_MOST_BYTES = 2**20
_SAMPLE = re.compile(r'^llmpod_(\w+)(?:\{result="(\w+)"\})? (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Saved:
    """What the cache spared the model.

    Args:
        answers: requests that were answered without it; None: not known, and ``why``.
        seconds: how long it would have worked for them, one after the other; None: it has not answered yet.
        since_seconds: for how long the proxy has counted.
    """

    answers: int | None = None
    seconds: float | None = None
    since_seconds: float | None = None
    why: str = ""

    def usd(self, usd_per_hour: float | None) -> float | None:
        """At the machine's price."""
        if self.seconds is None or usd_per_hour is None:
            return None
        return self.seconds / 3600 * usd_per_hour


def saved(config: PodConfig, key: Secret) -> Saved:
    """Ask the proxy on this machine. Never raises for what it does or does not answer."""
    try:
        status, text = _scrape(config, key)
    except ConnectionRefusedError:
        return Saved(why=f"the proxy does not answer: nothing listens on port {config.proxy_port}")
    except (OSError, http.client.HTTPException) as e:
        return Saved(why=f"the proxy does not answer ({type(e).__name__})")
    samples = {(name, label): value for name, label, value in _SAMPLE.findall(text)}
    if status != 200:
        return Saved(why=f"the proxy's /metrics answers {status}")
    try:
        return _from({key: float(value) for key, value in samples.items()})
    except (KeyError, ValueError):
        return Saved(why=f"what listens on port {config.proxy_port} is not llmpod's proxy")


def _scrape(config: PodConfig, key: Secret) -> tuple[int, str]:
    """The proxy's metrics as text. Raises OSError, HTTPException."""
    connection = own.connection(config, timeout=PATIENCE_SECONDS)
    try:
        bearer = {"Authorization": f"Bearer {key.reveal()}"} if config.auth is Auth.KEYS else {}
        connection.request("GET", "/metrics", headers={"Accept": "text/plain", **bearer})
        answer = connection.getresponse()
        return answer.status, answer.read(_MOST_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()


def _from(samples: dict[tuple[str, str], float]) -> Saved:
    """Raises KeyError for the metrics of another program."""
    hits, joins = samples["cache_results_total", "HIT"], samples["cache_results_total", "JOIN"]
    asked = samples["request_seconds_count", ""] - samples["hit_seconds_count", ""]
    worked = samples["request_seconds_sum", ""] - samples["hit_seconds_sum", ""]
    seconds = (hits + joins) * worked / asked if asked > 0 else (None if hits + joins else 0.0)
    return Saved(int(hits + joins), seconds, samples["uptime_seconds", ""])
