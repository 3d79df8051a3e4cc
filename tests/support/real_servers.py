"""Real model servers, not fakes, each with a tiny model whose random weights are made on the spot.

scripts/components installs llama.cpp, `scripts/components --all` vLLM for CPU and `transformers serve` as well, all
below .components and run by their own Pythons.
"""

import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.desk import MODEL
from tests.support.gguf import write_tiny_llama
from tests.support.source import ROOT

_HOME = ROOT / ".components"
LLAMA_PYTHON = _HOME / "llama" / "bin" / "python"
SERVERS_PYTHON = _HOME / "servers" / "bin" / "python"
_TINY_LLAMA = ROOT / "tests" / "support" / "tiny_llama.py"
_OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
_VLLM = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
}


@dataclass(frozen=True)
class Server:
    """One real server, ready to be configured.

    Attributes:
        model: what clients call its model.
        command: its words; an address is to be added.
        settings: what else `process` says in the configuration.
        log: what it writes once it serves.
        long: request fields for an answer that takes several seconds.
        ends_streams: with `[DONE]`.
        changes: what the configuration says beside.
    """

    model: str
    command: Sequence[str]
    settings: Mapping[str, object]
    log: str
    long: Mapping[str, object]
    ends_streams: bool = True
    changes: Mapping[str, object] = field(default_factory=dict)

    @property
    def section(self) -> dict[str, object]:
        """`process` in the configuration."""
        return {"command": list(self.command), **self.settings}


def why_not_llama() -> str:
    """Why llama.cpp cannot run here; empty when it can."""
    return _without(LLAMA_PYTHON, "xllamacpp", "scripts/components")


def why_not_others() -> str:
    """Why neither vLLM nor `transformers serve` can run here; empty when they can."""
    return _without(SERVERS_PYTHON, "vllm", "scripts/components --all")


def _without(python: Path, package: str, script: str) -> str:
    if any(python.parents[1].glob(f"lib/python*/site-packages/{package}")):
        return ""
    place = python.parents[1].relative_to(ROOT)
    machine = f"{sys.platform} on {platform.machine()}"
    return (
        f"not installed: {package} in {place}; `{script}` puts it there on Linux on x86_64, this is {machine}"
    )


def llama(directory: Path) -> Server:
    """llama.cpp's own server. Told to end in mid-answer, it goes silent and stays."""
    model = directory / "tiny.gguf"
    write_tiny_llama(model)
    program = str(ROOT / "tests" / "support" / "llama_server.py")
    words = [str(LLAMA_PYTHON), program, "--model", str(model), "--alias", MODEL]
    long = {"max_tokens": 20_000, "ignore_eos": True}
    return Server(MODEL, words, {"require_key": True}, "listening at", long)


def vllm(directory: Path) -> Server:
    """vLLM for CPU. Told to end in mid-answer, it ends the answer well, but for `finish_reason: "abort"`."""
    model = _weights(directory)
    words = [str(SERVERS_PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    words += ["--served-model-name", MODEL, "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "4"]
    words += ["--max-model-len", "4096"]
    settings = {"require_key": True, "env": {**_OFFLINE, **_VLLM}}
    long = {"max_tokens": 4000, "ignore_eos": True}
    return Server(MODEL, words, settings, "Application startup complete", long)


def transformers(directory: Path) -> Server:
    """`transformers serve`. It knows no keys, refuses fields that it does not know, and sends no `[DONE]`."""
    model, home = _weights(directory), directory / "hf"
    (home / "hub").mkdir(parents=True)  # without it, it cannot list its models
    words = [str(SERVERS_PYTHON.parent / "transformers"), "serve", str(model), "--device", "cpu"]
    return Server(
        str(model),
        words,
        {"env": {**_OFFLINE, "HF_HOME": str(home)}},
        "Application startup complete",
        {"max_tokens": 4000},
        ends_streams=False,
        changes={"served_model_name": str(model)},
    )


SERVERS: Mapping[str, tuple[Callable[[Path], Server], Callable[[], str]]] = {
    "llama.cpp": (llama, why_not_llama),
    "vllm": (vllm, why_not_others),
    "transformers": (transformers, why_not_others),
}


def _weights(directory: Path) -> Path:
    model = directory / "tiny"
    subprocess.run([SERVERS_PYTHON, _TINY_LLAMA, model], check=True, capture_output=True, timeout=180)
    return model
