"""What the server says about its model and its tokens. Not an answer of the model."""

import time
from collections.abc import Mapping
from typing import Any

from llmpod.sim.vllm import checks, tokens
from llmpod.sim.vllm.chat import new_id
from llmpod.sim.vllm.http import Refusal
from llmpod.sim.vllm.job import text_in
from llmpod.sim.vllm.options import VllmOptions

VERSION = "0.32.0"


def models(options: VllmOptions) -> dict[str, Any]:
    """The list of the one model that is served."""
    now = int(time.time())
    permission = {
        "id": new_id("modelperm-"),
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    model = {
        "id": options.name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": options.model,
        "parent": None,
        "max_model_len": options.max_model_len,
        "permission": [permission],
    }
    return {"object": "list", "data": [model]}


def tokenized(body: Mapping[str, Any], options: VllmOptions) -> dict[str, Any]:
    """The tokens of a prompt or of messages. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    if isinstance(prompt := body.get("prompt"), str):
        pieces = tokens.pieces(prompt)
    elif isinstance(messages := body.get("messages"), list):
        contents = (message for message in messages if isinstance(message, dict))
        pieces = [piece for message in contents for piece in tokens.pieces(text_in(message.get("content")))]
    else:
        raise Refusal(400, "Either prompt or messages must be provided.")
    wanted = body.get("return_token_strs")
    return {
        "count": len(pieces),
        "max_model_len": options.max_model_len,
        "tokens": [tokens.number(piece) for piece in pieces],
        "token_strs": [tokens.readable(piece) for piece in pieces] if wanted else None,
    }


def detokenized(body: Mapping[str, Any], options: VllmOptions) -> dict[str, Any]:
    """The text of token numbers. Raises Refusal (400, 404)."""
    checks.known_model(body, options)
    numbers = body["tokens"]
    if not all(isinstance(number, int) for number in numbers):
        raise Refusal(400, "tokens must be a list of integers", param="tokens")
    try:
        return {"prompt": tokens.text_of(numbers)}
    except ValueError as error:
        raise Refusal(400, str(error), param="tokens") from None
