"""The hub is asked little, told no secrets it should not know, and never downloaded from."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import pytest

from llmpod.backends.hub import Hub
from llmpod.backends.hub_texts import Unmeasured
from llmpod.backends.runpod_demand import Model, demand, model_of
from llmpod.config import PodConfig, parse
from llmpod.errors import BadCredentials, BadSpec, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.sim.hub import OUTSIDER, TOKEN
from llmpod.sim.launch import Simulator
from tests.support.rawserver import dripping

SEVEN = 7_600_000_000
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def sim(shared_sim: Simulator) -> Simulator:
    return shared_sim


Ask = Callable[..., Hub]


@pytest.fixture
def hub(sim: Simulator) -> Iterator[Ask]:
    """A hub with a token or without, closed at the end."""
    made: list[Hub] = []

    def ask(token: str | None = None, *, url: str = sim.hub_url, seconds: float = 20.0) -> Hub:
        made.append(Hub(url, Secret(token, "a test") if token else None, total_seconds=seconds))
        return made[-1]

    yield ask
    for one in made:
        one.close()


def asked(sim: Simulator) -> list[str]:
    return [call["path"] for call in sim.requests() if call["path"].startswith("/hub")]


# --- sizes
@pytest.mark.parametrize("model", ["org/seven", "org/seven-single"])
def test_size_is_exact_from_index_or_header(hub: Ask, model: str) -> None:
    found = hub().look_up(model)
    assert found.weights_bytes == 2 * SEVEN
    assert found.stored_bytes >= found.weights_bytes
    assert found.config["num_hidden_layers"] == 32
    assert len(found.revision) == 40


@pytest.mark.parametrize("model", ["org/seven", "org/seven-single", "org/long-header", "org/seventy"])
def test_few_requests_and_all_of_one_revision(sim: Simulator, hub: Ask, model: str) -> None:
    found = hub().look_up(model)
    paths = asked(sim)
    assert len([path for path in paths if not path.startswith("/hub-cdn/")]) <= 4
    assert all(found.revision in path for path in paths if "/resolve/" in path)


def test_a_header_longer_than_the_first_look_is_read_whole(hub: Ask) -> None:
    assert hub().look_up("org/long-header").weights_bytes == 14_000_000_000


def test_a_server_without_ranges_is_not_downloaded_from(hub: Ask) -> None:
    """14 GB of zeros would take far longer than this."""
    begin = time.monotonic()
    assert hub().look_up("org/no-ranges").weights_bytes == 14_000_000_000
    assert time.monotonic() - begin < 5


def test_copies_of_the_weights_count_for_the_disk_only(hub: Ask) -> None:
    found = hub().look_up("org/twice")
    assert found.weights_bytes == 14_000_000_000
    assert found.stored_bytes == pytest.approx(28_000_000_000, rel=0.001)


@pytest.mark.parametrize("model", ["org/seven-f32", "org/f32-single"])
def test_floats_of_32_bits_are_told_apart(hub: Ask, model: str) -> None:
    found = hub().look_up(model)
    assert found.weights_bytes == found.float32_bytes == 4 * SEVEN


# --- who may see what
def test_a_gated_model_says_how_to_get_in(hub: Ask) -> None:
    with pytest.raises(BadCredentials) as refused:
        hub().look_up("org/gated")
    assert "HF_TOKEN" in str(refused.value)
    assert "/org/gated" in str(refused.value)
    with pytest.raises(BadCredentials) as refused:
        hub(OUTSIDER).look_up("org/gated")
    assert "licence" in str(refused.value)
    assert OUTSIDER not in str(refused.value)
    assert hub(TOKEN).look_up("org/gated").weights_bytes == 16_000_000_000


def test_a_wrong_token_is_not_taken_for_a_missing_model(hub: Ask) -> None:
    with pytest.raises(BadCredentials, match="refused the token"):
        hub("hf_wrong").look_up("org/seven")


def test_the_token_does_not_follow_a_redirect(sim: Simulator, hub: Ask) -> None:
    """The CDN of the fake answers 400 to whoever brings a token along."""
    assert hub(TOKEN).look_up("org/seven-single").weights_bytes == 2 * SEVEN
    assert any(path.startswith("/hub-cdn/") for path in asked(sim))


@pytest.mark.parametrize("token", [None, TOKEN])
def test_an_unknown_model_names_the_nearest(hub: Ask, token: str | None) -> None:
    with pytest.raises(BadSpec) as refused:
        hub(token).look_up("org/sevn")
    assert not isinstance(refused.value, Unmeasured)
    assert "org/seven" in refused.value.hint
    assert ("HF_TOKEN" in refused.value.hint) is (token is None)


def test_a_private_model_does_not_exist_for_strangers(hub: Ask) -> None:
    with pytest.raises(BadSpec, match="no model org/private"):
        hub().look_up("org/private")
    assert hub(TOKEN).look_up("org/private").config


def test_revisions(hub: Ask) -> None:
    assert hub().look_up("org/seven", "v1").weights_bytes
    with pytest.raises(BadSpec, match="revision"):
        hub().look_up("org/seven", "no/such")


@pytest.mark.parametrize("model", ["org/..", "../etc"])
def test_no_id_leaves_its_place(sim: Simulator, hub: Ask, model: str) -> None:
    with pytest.raises(BadSpec):
        hub().look_up(model)
    assert asked(sim) == []


# --- when things go wrong
@pytest.mark.parametrize("fault", ["dropped", "garbage", "html", "503", "429"])
@pytest.mark.parametrize("good", [0, 1, 2])
def test_any_broken_answer_means_unavailable(sim: Simulator, hub: Ask, fault: str, good: int) -> None:
    for _ in range(good):
        sim.fault("hub", "slow=0")
    sim.fault("hub", fault)
    with pytest.raises(ProviderUnavailable):
        hub().look_up("org/seven")


@pytest.mark.parametrize("fault", ["hang", "slow=30"])
def test_a_slow_hub_is_given_up(sim: Simulator, hub: Ask, fault: str) -> None:
    sim.fault("hub", fault)
    begin = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        hub(seconds=0.5).look_up("org/seven")
    assert time.monotonic() - begin < 3


def test_a_header_that_drips_is_given_up(hub: Ask) -> None:
    begin = time.monotonic()
    with dripping() as url, pytest.raises(ProviderUnavailable, match="within 1 s"):
        hub(url=url, seconds=1.0).look_up("org/seven")
    assert time.monotonic() - begin < 3


def test_nobody_there(hub: Ask) -> None:
    with pytest.raises(ProviderUnavailable, match="cannot be reached"):
        hub(url=AWAY).look_up("org/seven")


def test_weights_that_cannot_be_measured(hub: Ask) -> None:
    with pytest.raises(Unmeasured, match="safetensors"):
        hub().look_up("org/no-weights")


# --- what the choice of a GPU is told
def configured(sim: Simulator, **fields: object) -> PodConfig:
    document = {"model": "org/seven", "gpu_type_id": "auto", "hub_url": sim.hub_url, **fields}
    return parse(document, path=Path("/nowhere/pod_config.json"), environ={}).common


def known(config: PodConfig) -> Model:
    with closing(Hub(config.hub_url, config.hf_token)) as hub:
        return model_of(config, hub)


def test_floats_of_32_bits_are_loaded_with_16_unless_told_otherwise(sim: Simulator) -> None:
    assert known(configured(sim, model="org/seven-f32")).shape.weights_bytes == 2 * SEVEN
    wide = configured(sim, model="org/seven-f32", vllm_args=["--dtype", "float32"])
    assert known(wide).shape.weights_bytes == 4 * SEVEN
    wide = configured(sim, model="org/seven", vllm_args=["--dtype=float"])
    assert known(wide).shape.weights_bytes == 4 * SEVEN
    assert demand(wide, known(wide)).load.kv_bytes == 4


def test_without_the_hub_a_well_known_model_is_remembered(sim: Simulator) -> None:
    found = known(configured(sim, model="Qwen/Qwen3-32B", hub_url=AWAY))
    assert "approximate" in found.source
    assert found.shape.kv_token_bytes() == 256 * 1024


def test_without_hub_and_memory_the_way_out_is_named(sim: Simulator) -> None:
    with pytest.raises(ProviderUnavailable, match="gpu_type_id"):
        known(configured(sim, hub_url=AWAY))


def test_a_config_that_says_too_little(sim: Simulator) -> None:
    with pytest.raises(Unmeasured, match="layers"):
        known(configured(sim, model="org/odd-config"))


BF16 = ("bfloat16",)


@pytest.mark.parametrize(
    ("fields", "load", "formats"),
    [
        ({}, (32768, 4, 2048, 2), BF16),
        ({"max_model_len": 4096, "concurrent_requests": 9}, (4096, 9, 2048, 2), BF16),
        ({"max_model_len": 4096, "vllm_args": ["--max-model-len=8K"]}, (8192, 4, 2048, 2), BF16),
        ({"vllm_args": ["--max_num_seqs", "2"]}, (32768, 2, 2048, 2), BF16),
        ({"vllm_args": ["--max-num-batched-tokens", "16384"]}, (32768, 4, 16384, 2), BF16),
        ({"vllm_args": ["--kv-cache-dtype", "fp8_e4m3"]}, (32768, 4, 2048, 1), ("bfloat16", "fp8")),
        ({"vllm_args": ["-q", "fp8"]}, (32768, 4, 2048, 2), ("fp8",)),
        ({"vllm_args": ["--dtype", "half"]}, (32768, 4, 2048, 2), ("float16",)),
        ({"model": "org/seven-fp8"}, (32768, 4, 2048, 2), ("fp8",)),
    ],
)
def test_what_the_configuration_asks_for(
    sim: Simulator,
    fields: dict[str, object],
    load: tuple[float, ...],
    formats: tuple[str, ...],
) -> None:
    config = configured(sim, **fields)
    found = demand(config, known(config))
    numbers = asdict(found.load)
    assert [numbers[name] for name in ("context", "requests", "batched_tokens", "kv_bytes")] == list(load)
    assert found.formats == formats


def test_utilization_is_the_users(sim: Simulator) -> None:
    for fields, share in (
        ({}, 0.92),
        ({"gpu_memory_utilization": 0.8}, 0.8),
        ({"vllm_args": ["--gpu-memory-utilization", "0.7"], "gpu_memory_utilization": 0.8}, 0.7),
    ):
        config = configured(sim, **fields)
        assert demand(config, known(config)).load.utilization == share
