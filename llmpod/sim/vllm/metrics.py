"""The metrics page of the fake: the real names, for the numbers it has. Not all of the real one's hundred."""

from collections.abc import Iterator

from llmpod.sim.vllm.counting import Requests
from llmpod.sim.vllm.engine import Counters, Timing

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_REASONS = ("stop", "length", "abort", "error", "repetition")


def page(counters: Counters, requests: Requests, model: str) -> str:
    """Prometheus text."""
    escaped = model.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    labels = f'engine="0",model_name="{escaped}"'
    return "\n".join([*_lines(counters, labels), *_requests(requests)]) + "\n"


def _lines(counters: Counters, labels: str) -> Iterator[str]:
    yield from _metric("num_requests_running", "gauge", "Number of requests in model execution batches.")
    yield f"vllm:num_requests_running{{{labels}}} {float(counters.running)}"
    yield from _metric("num_requests_waiting", "gauge", "Number of requests waiting to be processed.")
    yield f"vllm:num_requests_waiting{{{labels}}} {float(counters.waiting)}"
    yield from _metric("kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.")
    yield f"vllm:kv_cache_usage_perc{{{labels}}} {min(1.0, counters.running / 100)}"
    yield from _metric("prompt_tokens_total", "counter", "Number of prefill tokens processed.")
    yield f"vllm:prompt_tokens_total{{{labels}}} {float(counters.prompt_tokens)}"
    yield from _metric("generation_tokens_total", "counter", "Number of generation tokens processed.")
    yield f"vllm:generation_tokens_total{{{labels}}} {float(counters.generated_tokens)}"
    yield from _metric("request_success_total", "counter", "Count of successfully processed requests.")
    engine, model = labels.split(",", 1)
    for reason in _REASONS:
        told = counters.finished[reason] + (counters.finished["tool_calls"] if reason == "stop" else 0)
        yield f'vllm:request_success_total{{{engine},finished_reason="{reason}",{model}}} {float(told)}'
    yield from _times("time_to_first_token_seconds", counters.first_token, labels)
    yield from _times("e2e_request_latency_seconds", counters.whole, labels)


def _requests(requests: Requests) -> Iterator[str]:
    yield "# HELP http_requests_total Total number of requests by method, status and handler."
    yield "# TYPE http_requests_total counter"
    for (handler, method, status), count in requests.items():
        labels = f'handler="{handler}",method="{method}",status="{status}"'
        yield f"http_requests_total{{{labels}}} {float(count)}"


def _metric(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP vllm:{name} {text}"
    yield f"# TYPE vllm:{name} {kind}"


def _times(name: str, timing: Timing, labels: str) -> Iterator[str]:
    yield from _metric(name, "histogram", "Histogram in seconds.")
    yield f'vllm:{name}_bucket{{{labels},le="+Inf"}} {float(timing.count)}'
    yield f"vllm:{name}_count{{{labels}}} {float(timing.count)}"
    yield f"vllm:{name}_sum{{{labels}}} {timing.seconds}"
