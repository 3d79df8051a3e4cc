"""Not a key: what all sections of ``pod_config.json`` have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema

from llmpod.secret import MASK, Secret


def _token(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text that is not empty")
    return Secret(value, "the configuration")


Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Word = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
"""One argument of a command; no operating system takes a NUL in it."""
Token = Annotated[
    Secret,
    PlainValidator(_token),
    PlainSerializer(lambda _: MASK, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""A credential in the configuration; it is written nowhere."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
