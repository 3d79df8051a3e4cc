"""What a model needs of each GPU: figures that are known elsewhere, and laws that hold for all models."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpod.backends import vram
from llmpod.backends.runpod_gpus import CARDS, incapable, usable_gib
from llmpod.backends.runpod_models import KNOWN
from llmpod.backends.vram import GIB, PARALLEL, Load, Shape, UnknownShape, need, shape
from llmpod.sim import catalog as simulated

LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
KIB = 1024

shapes = st.builds(
    Shape,
    weights_bytes=st.integers(10**6, 10**12),
    layers=st.integers(1, 200),
    heads=st.sampled_from([8, 16, 32, 64, 128]),
    kv_heads=st.sampled_from([0, 1, 2, 4, 8, 16]),
    head_dim=st.sampled_from([64, 80, 96, 128, 256, 576]),
    experts=st.booleans(),
    vision=st.booleans(),
)
loads = st.builds(
    Load,
    context=st.integers(1, 10**6),
    requests=st.integers(1, 1024),
    batched_tokens=st.integers(1, 65536),
    kv_bytes=st.sampled_from([1, 2]),
)


# --- figures that others quote
@pytest.mark.parametrize(
    ("config", "kib"),
    [
        (LLAMA, 128),  # Llama-3.1-8B
        (  # Qwen3-32B: its heads are wider than hidden_size / heads
            {
                "num_hidden_layers": 64,
                "num_attention_heads": 64,
                "num_key_value_heads": 8,
                "hidden_size": 5120,
                "head_dim": 128,
            },
            256,
        ),
        ({**LLAMA, "num_key_value_heads": 32}, 512),  # every head has its own
        ({"num_hidden_layers": 32, "n_head": 32, "n_embd": 4096, "multi_query": True}, 16),
    ],
)
def test_cache_of_one_token(config: dict[str, Any], kib: float) -> None:
    assert shape(config, 1).kv_token_bytes() == kib * KIB


def test_latent_attention_keeps_one_vector_on_each_gpu() -> None:
    latent = shape({**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 1)
    assert latent.kv_token_bytes() == 32 * 576 * 2
    assert latent.kv_token_bytes(gpus=8) == latent.kv_token_bytes()


def test_the_remembered_models_agree_with_the_quoted_figures() -> None:
    assert KNOWN["meta-llama/Llama-3.1-8B-Instruct"].kv_token_bytes() == 128 * KIB
    assert KNOWN["Qwen/Qwen3-32B"].kv_token_bytes() == 256 * KIB
    assert len(KNOWN) >= 20
    assert all(model.weights_bytes > 10**8 and model.context for model in KNOWN.values())


def test_fp8_halves_the_cache() -> None:
    model, load = shape(LLAMA, 16 * 10**9), Load(8192)
    assert need(model, replace(load, kv_bytes=1), 1).kv == need(model, load, 1).kv / 2


def test_the_whole_sum_for_a_model_that_is_worked_by_hand() -> None:
    found = need(shape(LLAMA, 16 * GIB), Load(context=8192, requests=4), 1)
    assert (found.weights, found.kv, found.activation, found.other) == (16.0, 4.0, 1.0, 0.15)
    assert found.total == pytest.approx(21.15)
    assert "GiB: weights 16.0, KV 4.0 (4 x 8192 tokens), activation 1.0" in str(found)


def test_activation_follows_what_llm_d_measured() -> None:
    assert vram.activation(8192, experts=False) == pytest.approx(5.6)
    assert vram.activation(8192, experts=True) == pytest.approx(8.0)
    assert vram.activation(512, experts=False) == vram.activation(2048, experts=False) == 1.0


# --- reading config.json
@pytest.mark.parametrize("part", ["text_config", "llm_config", "language_config"])
def test_the_text_part_of_a_multimodal_model_is_found(part: str) -> None:
    found = shape({"vision_config": {"hidden_size": 1}, part: LLAMA}, 7)
    assert (found.layers, found.kv_heads, found.head_dim, found.vision) == (32, 8, 128, True)


def test_layers_with_a_state_of_fixed_size_have_no_cache() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 8
    assert shape({**LLAMA, "layer_types": kinds}, 1).layers == 8
    sliding = ["sliding_attention", "full_attention"] * 16
    assert (
        shape({**LLAMA, "layer_types": sliding}, 1).layers == 32
    )  # held to the full length: the careful reading


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 16384),
        ({"type": "linear", "factor": 4.0}, 65536),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}, 131072),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}, 16384),
    ],
)
def test_context_that_vllm_derives(scaling: dict[str, Any] | None, context: int) -> None:
    assert shape({**LLAMA, "max_position_embeddings": 16384, "rope_scaling": scaling}, 1).context == context


@pytest.mark.parametrize(
    ("quant", "name"),
    [
        ({"quant_method": "awq", "group_size": 128}, "awq"),
        ({"quant_method": "gptq", "group_size": -1}, "gptq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            "fp8",
        ),
    ],
)
def test_quantization_is_named(quant: dict[str, Any], name: str) -> None:
    assert shape({**LLAMA, "quantization_config": quant}, 1).quantization == name


@pytest.mark.parametrize("config", [{}, {"num_hidden_layers": 2}, {"num_hidden_layers": 2, "n_head": 4}])
def test_a_config_that_says_too_little_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UnknownShape):
        shape(config, 1)


FIELDS = [*LLAMA, "head_dim", "kv_lora_rank", "max_position_embeddings"]
ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PARTS = ["text_config", "rope_scaling", "quantization_config", "layer_types", "architectures", "dtype"]


@given(
    st.dictionaries(st.sampled_from(FIELDS), st.integers(-5, 10**6) | ODD, min_size=4)
    | st.dictionaries(st.sampled_from(PARTS), ODD).map(lambda odd: {**LLAMA, **odd})
)
def test_no_config_breaks_the_reader(config: dict[str, Any]) -> None:
    try:
        found = shape(config, 1)
    except UnknownShape:
        return
    assert found.layers > 0
    assert found.heads > 0
    assert found.head_dim > 0


# --- how a model is cut
def test_what_vllm_cannot_cut_is_said() -> None:
    model = Shape(1, 1, heads=40, kv_heads=8, head_dim=128)
    assert model.not_parallel(8) == ""
    assert "28 attention heads" in replace(model, heads=28).not_parallel(8)
    assert "key/value" in replace(model, heads=24, kv_heads=6).not_parallel(4)
    blocks = replace(model, heads=32, kv_heads=4, group=128, width=768)  # Qwen3-30B-A3B-FP8
    assert blocks.not_parallel(2) == ""
    assert "groups of 128" in blocks.not_parallel(4)


@given(shapes, loads, st.sampled_from(PARALLEL))
def test_more_context_more_requests_more_weights_never_need_less(model: Shape, load: Load, gpus: int) -> None:
    total = need(model, load, gpus).total
    assert need(model, replace(load, context=load.context + 1000), gpus).total > total
    assert need(model, replace(load, requests=load.requests + 1), gpus).total > total
    assert need(replace(model, weights_bytes=model.weights_bytes + GIB), load, gpus).total > total
    assert need(model, replace(load, batched_tokens=load.batched_tokens + 4096), gpus).total >= total


@given(shapes, loads)
def test_more_gpus_never_need_more_of_each(model: Shape, load: Load) -> None:
    parts = [need(model, load, gpus) for gpus in PARALLEL]
    for fewer, more in pairwise(parts):
        assert more.weights < fewer.weights
        assert more.kv <= fewer.kv
        assert more.activation == fewer.activation


@given(shapes, loads, st.sampled_from(PARALLEL))
def test_the_parts_make_the_whole(model: Shape, load: Load, gpus: int) -> None:
    found = need(model, load, gpus)
    assert found.total == pytest.approx(found.weights + found.kv + found.activation + found.other)
    assert min(found.weights, found.kv, found.activation, found.other) > 0
    assert found.weights * gpus * GIB == pytest.approx(model.weights_bytes)


# --- the cards
def test_usable_memory_is_less_than_what_is_advertised_and_near_what_drivers_say() -> None:
    assert all(0.9 * card.memory_gb < card.usable_gib < card.memory_gb for card in CARDS.values())
    assert usable_gib("NVIDIA L4", 24) <= 22.5
    assert usable_gib("NVIDIA H100 80GB HBM3", 80) == pytest.approx(79.2, abs=0.15)
    assert usable_gib("some future card", 100) == pytest.approx(91)


def test_the_cards_agree_with_the_catalog_that_was_recorded() -> None:
    assert {gpu.id: gpu.memory for gpu in simulated.GPUS.values()} == {
        gpu_id: CARDS[gpu_id].memory_gb for gpu_id in simulated.GPUS
    }


@pytest.mark.parametrize(
    ("gpu", "number", "can"),
    [
        ("NVIDIA A40", "fp8", False),
        ("NVIDIA L40S", "fp8", True),
        ("NVIDIA A100 80GB PCIe", "fp8", False),
        ("NVIDIA A40", "bfloat16", True),
        ("NVIDIA H100 80GB HBM3", "nvfp4", False),
        ("NVIDIA B200", "nvfp4", True),
        ("some future card", "fp8", True),
        ("NVIDIA L4", "something new", True),
    ],
)
def test_compute_capability(gpu: str, number: str, can: bool) -> None:  # noqa: FBT001 - a column of the table
    assert (incapable(gpu, number) == "") is can
