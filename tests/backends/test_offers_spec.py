"""What is created on the machine that was chosen: arguments, disk, CUDA floor, and the digest that names it."""

import pytest

from llmpod.backends.runpod_spec import cuda_floor, digest, disk_gb, on_machine, pod_spec
from llmpod.model import Offer
from tests.backends.market import SEVENTY, configured, wants


def test_the_estimate_is_for_settings_that_are_passed() -> None:
    config = configured()
    args = pod_spec(config, (), demand=wants(config)).args
    assert args[args.index("--max-num-batched-tokens") + 1] == "2048"
    assert args[args.index("--max-num-seqs") + 1] == "256"
    assert args[args.index("--gpu-memory-utilization") + 1] == "0.92"
    own = configured(vllm_args=["--max-num-seqs=8", "--max-num-batched-tokens", "512"])
    args = pod_spec(own, (), demand=wants(own)).args
    assert args.count("--max-num-batched-tokens") == 1
    assert "--max-num-seqs" not in args
    named = configured(gpu_type_id="NVIDIA L4")
    assert "--max-num-seqs" not in pod_spec(named, (), demand=wants(named)).args


def test_a_named_large_gpu_is_judged_by_vllms_own_batch() -> None:
    named, auto = configured(gpu_type_id="NVIDIA H200"), configured()
    assert wants(named).fit("NVIDIA H200", 141, 1).need.activation == pytest.approx(5.6)
    assert wants(named).fit("NVIDIA A100 80GB PCIe", 80, 1).need.activation == 1.0
    assert wants(auto).fit("NVIDIA H200", 141, 1).need.activation == 1.0


def test_all_gpus_of_a_machine_are_used() -> None:
    spec = pod_spec(configured(), ())
    assert on_machine(spec, Offer("NVIDIA L4", 4)).args[-2:] == ("--tensor-parallel-size", "4")
    assert on_machine(spec, Offer("NVIDIA L4", 1)) == spec
    for given_ in ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "--data_parallel_size"):
        own = pod_spec(configured(vllm_args=[given_, "2"]), ())
        assert on_machine(own, Offer("NVIDIA L4", 4)) == own
    template = pod_spec(configured(template_id="abc", gpu_type_id="NVIDIA L4"), ())
    assert on_machine(template, Offer("NVIDIA L4", 4)) == template


@pytest.mark.parametrize(
    ("fields", "stored", "disk"),
    [
        ({}, 15_200_000_000, 55),  # 1.3 x 15.2 + 10 + 25
        ({}, 1_000_000_000, 50),
        ({}, None, 100),
        ({}, 141_000_000_000, 219),
        ({"disk_gb": 33}, 141_000_000_000, 33),
        ({"network_volume_id": "vol"}, 141_000_000_000, 50),
    ],
)
def test_disk_follows_the_weights(fields: dict[str, object], stored: int | None, disk: int) -> None:
    assert disk_gb(configured(**fields), stored) == disk


@pytest.mark.parametrize(
    ("fields", "floor"),
    [
        ({}, "13.0"),
        ({"image": "vllm/vllm-openai:v0.29.0-cu129"}, "12.9"),
        ({"image": "vllm/vllm-openai:latest-cu130@sha256:00"}, "13.0"),
        ({"image": "vllm/vllm-openai:v0.19.1"}, "12.9"),
        ({"image": "docker.io/vllm/vllm-openai:v0.10.2"}, "12.8"),
        ({"image": "vllm/vllm-openai:v0.6.3"}, "12.4"),
        ({"image": "vllm/vllm-openai:latest"}, "13.0"),
        ({"image": "vllm/vllm-openai"}, "13.0"),
        ({"image": "somebody/else:v1"}, None),
        ({"image": "somebody/else:cu128-v1"}, "12.8"),
        ({"template_id": "abc", "gpu_type_id": "NVIDIA L4"}, None),
        ({"min_cuda_version": "12.6"}, "12.6"),
    ],
)
def test_cuda_floor(fields: dict[str, object], floor: str | None) -> None:
    assert cuda_floor(configured(**fields)) == floor


def test_the_digest_is_of_the_configuration_alone() -> None:
    config = configured()
    one = pod_spec(config, (), demand=wants(config))
    other = pod_spec(config, (Offer("NVIDIA L4"),), (Offer("x"),), demand=wants(config, SEVENTY))
    assert one.digest == other.digest == digest(config)
    assert one.disk_gb != other.disk_gb
