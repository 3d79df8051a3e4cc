"""Not a metrics library: plain integers that the hot path may touch, and their export when somebody asks.

Histograms have fixed bounds and preallocated counters; prometheus-client sees them only during a scrape.
Labels come from fixed sets; a model name is one of at most :data:`MAX_MODELS`, the rest is ``other`` (T23).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics

from llmpod.memo import LONGEST

MAX_MODELS: Final = 32
CACHE_RESULTS: Final = ("HIT", "MISS", "JOIN", "BYPASS")
STATUS_CLASSES: Final = ("1xx", "2xx", "3xx", "4xx", "5xx")
# seconds; the low end resolves cache hits (tens of microseconds), the high end cold models
SECONDS_BOUNDS: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)


class Histogram:
    """Counts by upper bound; ``observe`` is one bisect, three additions and a comparison."""

    __slots__ = ("bounds", "counts", "most", "sum", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.total = 0
        self.most = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
        self.total += 1
        self.most = max(self.most, value)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them, ``+Inf`` last."""
        out, running = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            running += count
            out.append((bound, float(running)))
        return out

    def quantile(self, share: float) -> float | None:
        """Where it lies in its bucket if values are spread evenly there, and never above what was observed.

        None when nothing was.
        """
        if not self.total:
            return None
        wanted, running, below = share * self.total, 0, 0.0
        for bound, count in zip((*self.bounds, self.most), self.counts, strict=True):
            if running + count >= wanted:
                within = below + (bound - below) * (wanted - running) / count
                return min(within, self.most)
            running, below = running + count, bound
        return self.most


class Metrics:
    """Everything the proxy counts. Attributes are public: the hot path adds to them directly."""

    def __init__(self) -> None:
        self.requests_total = 0
        self.errors_total = 0
        self.cache: dict[str, int] = dict.fromkeys(CACHE_RESULTS, 0)
        self.status: list[int] = [0] * len(STATUS_CLASSES)
        self.models: dict[str, int] = {}
        self.seconds = Histogram()
        self.hit_seconds = Histogram()
        self.first_byte_seconds = Histogram()
        self.upstream_calls = 0
        self.upstream_retries = 0
        self.upstream_failures: dict[str, int] = {}
        self.truncated = 0
        self.cancelled = 0
        self.client_gone = 0
        self.refused_at_edge = 0
        self.config_reload_failed = 0
        self.in_flight = 0
        self.bytes_out = 0

    def request(self, status: int, cache: str, seconds: float) -> None:
        """Count one answered ``/v1`` request.

        Args:
            status: HTTP status sent to the client.
            cache: one of :data:`CACHE_RESULTS`, or empty when the cache had no say.
            seconds: from the last byte of the request to the last byte of the answer.
        """
        self.requests_total += 1
        self.status[status // 100 - 1] += 1
        if status >= 400 and status != 499:  # 499: the client left
            self.errors_total += 1
        if cache:
            self.cache[cache] += 1
        self.seconds.observe(seconds)
        if cache == "HIT":
            self.hit_seconds.observe(seconds)

    def failure(self, code: str) -> None:
        """Count one failed upstream call under its error code (a class attribute of ours: a fixed set)."""
        self.upstream_failures[code] = self.upstream_failures.get(code, 0) + 1

    def model(self, name: str) -> None:
        """Count a request for a model; beyond :data:`MAX_MODELS` names, and with a long one, as ``other``."""
        if name not in self.models and (len(self.models) >= MAX_MODELS or len(name) > LONGEST):
            name = "other"
        self.models[name] = self.models.get(name, 0) + 1

    def as_json(self, gauges: Mapping[str, float]) -> dict[str, Any]:
        """The JSON of ``GET /metrics``; ``gauges`` (cache fill, uptime …) are merged in."""
        hits, misses, joins = self.cache["HIT"], self.cache["MISS"], self.cache["JOIN"]
        asked = hits + misses + joins
        return {
            "requests_total": self.requests_total,
            "cache_hits": hits,
            "cache_misses": misses,
            "cache_joins": joins,
            "cache_bypasses": self.cache["BYPASS"],
            "errors_total": self.errors_total,
            "avg_response_time": self.seconds.sum / self.seconds.total if self.seconds.total else 0.0,
            "cache_hit_rate": 100.0 * hits / asked if asked else 0.0,
            "error_rate": 100.0 * self.errors_total / self.requests_total if self.requests_total else 0.0,
            "response_time_p50": self.seconds.quantile(0.5),
            "response_time_p99": self.seconds.quantile(0.99),
            "hit_time_p50": self.hit_seconds.quantile(0.5),
            "first_byte_p50": self.first_byte_seconds.quantile(0.5),
            "responses_by_status": dict(zip(STATUS_CLASSES, self.status, strict=True)),
            "requests_by_model": dict(self.models),
            "requests_in_flight": self.in_flight,
            "upstream_calls": self.upstream_calls,
            "upstream_retries": self.upstream_retries,
            "upstream_failures": dict(self.upstream_failures),
            "truncated_total": self.truncated,
            "cancelled_total": self.cancelled,
            "client_gone_total": self.client_gone,
            "refused_at_edge_total": self.refused_at_edge,
            "config_reload_failed_total": self.config_reload_failed,
            "bytes_sent_total": self.bytes_out,
            **gauges,
        }

    def families(self, gauges: Mapping[str, float]) -> Iterator[Metric]:
        """The same as Prometheus metric families."""
        yield from _counters(self)
        yield _labelled("cache_results", "Requests by what the cache did", "result", self.cache)
        by_class = dict(zip(STATUS_CLASSES, self.status, strict=True))
        yield _labelled("responses", "Answers by status class", "class", by_class)
        yield _labelled("model_requests", "Requests by model", "model", self.models)
        yield _labelled("upstream_failures", "Failed upstream calls by code", "code", self.upstream_failures)
        yield _histogram("request_seconds", "Time from request to end of answer", self.seconds)
        yield _histogram("hit_seconds", "The same for cache hits", self.hit_seconds)
        yield _histogram("first_byte_seconds", "Time to the first upstream byte", self.first_byte_seconds)
        yield GaugeMetricFamily("llmpod_requests_in_flight", "Requests being answered", value=self.in_flight)
        for name, value in gauges.items():
            yield GaugeMetricFamily(f"llmpod_{name}", name.replace("_", " "), value=value)


def _counters(m: Metrics) -> Iterator[Metric]:
    for name, text, value in (
        ("requests", "Requests to /v1", m.requests_total),
        ("errors", "Answers with status 400 or above", m.errors_total),
        ("upstream_calls", "Calls to the model server", m.upstream_calls),
        ("upstream_retries", "Calls repeated because nothing had come of them", m.upstream_retries),
        ("truncated", "Answers that the model server cut off", m.truncated),
        ("cancelled", "Upstream calls cancelled because nobody listened any more", m.cancelled),
        ("client_gone", "Clients that left before the end of their answer", m.client_gone),
        ("refused_at_edge", "Requests turned away before they were read", m.refused_at_edge),
        ("config_reload_failed", "Changed settings that could not be taken over", m.config_reload_failed),
        ("bytes_sent", "Body bytes sent to clients", m.bytes_out),
    ):
        yield CounterMetricFamily(f"llmpod_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"llmpod_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(f"llmpod_{name}", text, buckets=histogram.buckets(), sum_value=histogram.sum)


class _Scrape:
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def exposition(metrics: Metrics, gauges: Mapping[str, float], *, accept: str) -> tuple[bytes, str]:
    """The text for a scraper and its content type: OpenMetrics if ``accept`` asks for it, else Prometheus."""
    registry = CollectorRegistry()
    registry.register(_Scrape(lambda: metrics.families(gauges)))
    if "application/openmetrics-text" in accept:
        lines: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # it ships no type
        return lines, openmetrics.CONTENT_TYPE_LATEST
    text: bytes = generate_latest(registry)
    return text, "text/plain; version=0.0.4; charset=utf-8"


def wants_text(accept: str) -> bool:
    """Whether an ``Accept`` header is a scraper's; a browser's or curl's ``*/*`` gets JSON."""
    first = accept.partition(",")[0].partition(";")[0].strip().lower()
    return first in ("application/openmetrics-text", "text/plain")
