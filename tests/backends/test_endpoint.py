"""What RunPod says of a serverless endpoint, read into values: odd, old and hostile answers included."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from llmpod import config as configuration
from llmpod.backends.runpod_endpoint import Endpoint, Load, billed_gpus
from llmpod.errors import ConfigError, ProviderUnavailable


def shown(**changes: object) -> dict[str, object]:
    """An endpoint as in RunPod's own example."""
    health = "https://api.runpod.ai/v2/4m7x2k9q/health"
    limits = {"min": 1, "max": 10, "idleTimeout": 10}
    return {
        "id": "4m7x2k9q",
        "type": "QUEUE",
        "requestUrls": {"health": health},
        "workers": limits,
        **changes,
    }


def test_addresses_are_those_that_runpod_names() -> None:
    base = "https://api.runpod.ai/v2/4m7x2k9q"
    assert Endpoint.read(shown()) == Endpoint("4m7x2k9q", f"{base}/openai", f"{base}/health", 1, 10)
    urls = {"base": "https://4m7x2k9q.api.runpod.ai", "health": "https://4m7x2k9q.api.runpod.ai/ping"}
    balanced = Endpoint.read(shown(type="LOAD_BALANCER", requestUrls=urls))
    assert (balanced.base_url, balanced.health_url) == ("https://4m7x2k9q.api.runpod.ai", None)


@pytest.mark.parametrize(
    "broken",
    [
        {"requestUrls": None},
        {"requestUrls": {"health": "http://api.runpod.ai/v2/x/health"}},
        {"requestUrls": {"health": "https://[/health"}},
        {"workers": {"min": 0}},
        {"workers": [1]},
    ],
)
def test_an_endpoint_without_limits_or_safe_addresses_is_not_used(broken: Mapping[str, object]) -> None:
    with pytest.raises(ProviderUnavailable):
        Endpoint.read(shown(**broken))


def test_counts_of_any_form_are_read() -> None:
    old = {"jobs": {"inProgress": 1, "inQueue": 3}, "workers": {"idle": 0, "running": 1}}
    assert Load.of_health(old) == Load(running=1, in_progress=1, queued=3)
    assert Load.of_health({"jobs": None, "workers": {"idle": "many", "running": -1, "ready": True}}) == Load()
    assert (
        str(Load(running=1, throttled=2, queued=1))
        == "workers: 1 running, 2 throttled; 1 request in the queue"
    )


def test_only_workers_with_a_machine_are_billed() -> None:
    listed = [
        {"status": "RUNNING", "gpuTypeId": "NVIDIA L4", "gpuCount": 2},
        {"status": "THROTTLED", "gpuTypeId": "NVIDIA L4", "gpuCount": 1},
        {"status": "INITIALIZING", "gpuTypeId": None, "gpuCount": 1},
    ]
    assert billed_gpus({"workers": listed}) == [("NVIDIA L4", 2)]
    assert billed_gpus({"workers": "none"}) == []


def test_more_workers_at_least_than_at_most_are_refused(tmp_path: Path) -> None:
    section = {"endpoint_id": "e", "api_key_file": "k", "min_workers": 2, "max_workers": 1}
    raw = {"model": "org/m", "backend": "runpod_serverless", "runpod_serverless": section}
    with pytest.raises(ConfigError, match="min_workers"):
        configuration.parse(raw, path=tmp_path / "pod_config.json", environ={})
