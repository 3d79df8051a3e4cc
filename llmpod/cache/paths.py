"""Not a router: what kind of answer each path of the model server gives, as one table.

The key, the verdict and the two conversions all ask this table, so a path is described once.
"""

from enum import Enum
from typing import Final

from llmpod.memo import remembered


class Shape(Enum):
    """The form of an answer."""

    __hash__ = object.__hash__  # identity will do for members, at a tenth of the price of Enum's own

    CHAT = "chat"  # chat.completion, or its chunks ended by [DONE]
    TEXT = "text"  # text_completion, or its chunks ended by [DONE]
    RESPONSES = "responses"  # OpenAI Responses: a response object, or events ended by response.completed
    MESSAGES = "messages"  # Anthropic Messages: a message, or events ended by message_stop
    DOCUMENT = "document"  # one JSON document, never streamed
    OPAQUE = "opaque"  # not known to give the same answer to the same question: passed on, never stored


_SHAPES: Final = {
    "/chat/completions": Shape.CHAT,
    "/completions": Shape.TEXT,
    "/responses": Shape.RESPONSES,
    "/messages": Shape.MESSAGES,
    "/messages/count_tokens": Shape.DOCUMENT,
    "/embeddings": Shape.DOCUMENT,
    "/pooling": Shape.DOCUMENT,
    "/classify": Shape.DOCUMENT,
    "/score": Shape.DOCUMENT,
    "/rerank": Shape.DOCUMENT,
    "/tokenize": Shape.DOCUMENT,
    "/detokenize": Shape.DOCUMENT,
}

_NOT_STORED: Final = (
    ("/audio/", "audio uploads are not stored"),
    ("/images/", "images are not stored"),
    ("/files", "files live on the server"),
    ("/batches", "batches live on the server"),
    ("/responses/", "refers to a response that lives on the server"),
    ("/sleep", "changes the server"),
    ("/wake_up", "changes the server"),
    ("/load_lora_adapter", "changes the server"),
    ("/unload_lora_adapter", "changes the server"),
)


def bare(path: str) -> str:
    """The path without query and version: ``/v1/rerank?x=1``, ``/v2/rerank`` and ``/rerank`` are one."""
    plain = path.partition("?")[0]
    return plain[3:] if plain.startswith(("/v1/", "/v2/")) else plain


@remembered(256)
def shape_of(path: str) -> Shape:
    """The kind of answer a POST to this path gets."""
    return _SHAPES.get(bare(path), Shape.OPAQUE)


def not_stored_because(path: str) -> str:
    """Why a path of shape OPAQUE is not stored, for the header that says so."""
    plain = bare(path)
    for prefix, reason in _NOT_STORED:
        if plain.startswith(prefix):
            return reason
    return "not a path whose answers are known to repeat"


@remembered(256)
def converts(path: str) -> bool:
    """True where one stored entry serves both clients that stream and clients that do not."""
    return shape_of(path) in {Shape.CHAT, Shape.TEXT, Shape.RESPONSES, Shape.MESSAGES}


@remembered(256)
def counts_on_request(path: str) -> bool:
    """True where a stream says how many tokens were used only if that was asked for."""
    return shape_of(path) in {Shape.CHAT, Shape.TEXT}
