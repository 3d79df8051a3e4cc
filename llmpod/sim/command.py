"""Not a shell: what vLLM would be told by a pod's entrypoint and cmd, in any of the forms people write them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLAGS = "LLMPOD_SIM_VLLM_FLAGS"
"""The variable that tells the `vllm` of a script how to behave: more of the fake's flags, as a JSON list."""
_STARTERS = {"vllm", "serve", "python", "python3", "-m", "vllm.entrypoints.openai.api_server", "--"}
_SHELLS = {"sh", "bash", "/bin/sh", "/bin/bash"}
_SWITCHES = {
    "--enable-auto-tool-choice",
    "--trust-remote-code",
    "--enforce-eager",
    "--enable-prefix-caching",
    "--disable-log-requests",
    "--enable-chunked-prefill",
}
_DEFAULT_MODEL = "Qwen/Qwen3-0.6B"  # what `vllm serve` takes when it is told none


@dataclass(frozen=True)
class VllmCommand:
    """The part of a vLLM command line that shows from outside."""

    model: str
    served_name: str
    host: str = "0.0.0.0"  # noqa: S104 - inside the pod; on this machine it listens on 127.0.0.1 whatever it is told
    port: int = 8000
    max_model_len: int = 8192
    auto_tools: bool = False
    key: str | None = None


def vllm_command(config: Mapping[str, Any]) -> VllmCommand | None:
    """What the container of this configuration serves; None when it is no vLLM."""
    words = [*config["entrypoint"], *config["cmd"]]
    if "vllm" not in config["image"] and not any("vllm" in word for word in words):
        return None
    positional, flags = _parsed(_beyond_shell(words))
    model = flags.get("--model") or (positional[0] if positional else _DEFAULT_MODEL)
    return VllmCommand(
        model=model,
        served_name=flags.get("--served-model-name") or model,
        host=flags.get("--host", VllmCommand.host),
        port=_number(flags.get("--port"), 8000),
        max_model_len=_number(flags.get("--max-model-len"), 8192),
        auto_tools="--enable-auto-tool-choice" in flags,
        key=flags.get("--api-key") or config["env"].get("VLLM_API_KEY"),
    )


def script_of(config: Mapping[str, Any]) -> list[str]:
    """The words of a container that starts with a script, `sh -c SCRIPT NAME …`; none when it does not."""
    words = [*config["entrypoint"], *config["cmd"]]
    return words if words and words[0] in _SHELLS and "-c" in words[:-1] else []


def _beyond_shell(words: Sequence[str]) -> list[str]:
    """The arguments that a script gets as "$@": `bash -c SCRIPT -- MODEL …` (the first one after it is $0)."""
    if words and words[0] in _SHELLS and "-c" in words:
        return list(words[words.index("-c") + 3 :])
    return list(words)


def _parsed(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    positional: list[str] = []
    flags: dict[str, str] = {}
    rest = [word for word in words if word not in _STARTERS]
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--"):
            positional.append(word)
        elif equals or name in _SWITCHES or not rest or rest[0].startswith("--"):
            flags[name] = value
        else:
            flags[name] = rest.pop(0)
    return positional, flags


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isdecimal() else default
