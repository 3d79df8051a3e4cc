"""Not a key: what all sections of ``pod_config.json`` have in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Word = Annotated[str, Field(max_length=100_000, pattern=r"^[^\x00]*$")]
"""One argument of a command; no operating system takes a NUL in it."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
