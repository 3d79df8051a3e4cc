"""Not a router: whether a model server answers to names that its configuration does not tell. Pure.

A name that nobody knows is refused before anything is started for it. That is right where all names are known, and
wrong where a server has a list of its own that we see only once it runs.
"""

from collections.abc import Sequence
from typing import Final

from llmpod.config.schema import PodConfig
from llmpod.config.server_args import served, values
from llmpod.model import ANY_NAME

# vLLM's and SGLang's: each adapter is a model of its own, and more can be loaded while the server runs
_ADAPTERS: Final = ("--enable-lora", "--lora-modules", "--lora-paths")
_SERVED: Final = "--served-model-name"


def has_more_names(model: PodConfig) -> bool:
    """Whether its server may serve under names beside those of the configuration.

    Somebody else's server (``static``), one whose own list counts (``served_model_name: "*"``), one with adapters.
    """
    section = getattr(model, model.backend, None)
    words = (*model.vllm_args, *getattr(section, "command", ()))
    return model.backend == "static" or model.served_model_name == ANY_NAME or _has_adapters(words)


def names_of_command(command: Sequence[str]) -> tuple[str, ...]:
    """The names to which a typed command answers, where its words say that for certain; else none.

    ``--served-model-name`` is the list of vLLM and SGLang; without it, vLLM answers to what it was told to serve, to
    the letter. llama.cpp answers to any name, and of other programs nothing is known.
    """
    if _has_adapters(command):
        return ()
    given = values(command, _SERVED)
    if given or not is_vllm(command):
        return given
    word = served(command)
    return (word,) if word else values(command, "--model")[:1]


def _has_adapters(words: Sequence[str]) -> bool:
    return any(word.partition("=")[0] in _ADAPTERS for word in words)


def is_vllm(command: Sequence[str]) -> bool:
    """Whether a word of it is vLLM, as a program or a module."""
    return any("vllm" in word.rpartition("/")[2].split(".") for word in command)
