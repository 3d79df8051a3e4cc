"""Not a setting: the key that somebody typed as their model server's own, in the command that starts it. Pure.

The server gets a key of ours in its environment, where ``ps`` does not show it, and an option beside it would count
instead. So the typed one is taken out; what it was for, keeping others out, the proxy does with it.
"""

from collections.abc import Sequence
from typing import Final

from llmpod.config.names import is_vllm

_OPTION: Final = "--api-key"


def without_key(command: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The command without its server's keys, and these.

    vLLM takes all words up to the next option, llama.cpp a list with commas. Other programs may mean something else by
    this option, or know no other way to get a key: their command stays as it is.
    """
    vllm = is_vllm(command)
    if not vllm and not any(word.rpartition("/")[2] == "llama-server" for word in command[:1]):
        return list(command), ()
    kept: list[str] = []
    keys: list[str] = []
    taking = False
    for word in command:
        if taking and not word.startswith("-"):
            keys.append(word)
            taking = vllm
            continue
        name, equals, value = word.partition("=")
        taking = word == _OPTION
        if name != _OPTION:
            kept.append(word)
        elif equals:
            keys.append(value)
    split = keys if vllm else [key for text in keys for key in text.split(",")]
    return kept, tuple(dict.fromkeys(key for key in split if key))
