"""Not the limiter: how often callers may ask for which paths, and what tokens cost, as both are written down."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from llmpod.config.section import Section
from llmpod.errors import ConfigError

MOST_LIMITS = 64


class Per(StrEnum):
    """Who shares what a limit allows."""

    CALLER = "caller"  # one key; without keys, one address
    ADDRESS = "address"  # all keys that call from one address
    EVERYBODY = "everybody"


class RateLimit(Section):
    """What may be sent to the paths of one pattern and used by their answers, by the minute."""

    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    per: Annotated[Per, Field(strict=False)] = Per.CALLER

    @model_validator(mode="after")
    def _says_something(self) -> "RateLimit":
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise ValueError("give `requests_per_minute`, `tokens_per_minute` or both")
        return self


class TokenPrice(Section):
    """USD for a million tokens."""

    prompt: Annotated[float, Field(ge=0, le=10**6, strict=False)]
    completion: Annotated[float, Field(ge=0, le=10**6, strict=False)]


# a whole path, or the beginning of one before `*`
PathPattern = Annotated[str, Field(pattern=r"^(\*|/[!-)+-~]*\*?)$", max_length=200)]
RateLimits = Annotated[dict[PathPattern, RateLimit], Field(max_length=MOST_LIMITS)]
TokenPrices = Annotated[dict[Annotated[str, Field(min_length=1, max_length=200)], TokenPrice], Field()]


# --- in the environment ------------------------------------------------------------------------------------
def rates_text(table: Mapping[str, Section]) -> str:
    """As ``read_rates`` and ``read_prices`` take it; empty for an empty table."""
    if not table:
        return ""
    return json.dumps({name: row.model_dump(mode="json", exclude_none=True) for name, row in table.items()})


def _reader(kind: Any, example: str) -> Callable[[str, str], Any]:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(name: str, text: str) -> Any:
        try:
            return adapter.validate_json(text)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(
                f"{name}: {where + ': ' if where else ''}{first['msg'].removeprefix('Value error, ')}.",
                hint=f"Example: {example}",
                param=name,
            ) from None

    return read


read_rates = _reader(RateLimits, '{"/v1/embeddings": {"requests_per_minute": 60}}')
read_model_limits = _reader(
    Annotated[dict[str, RateLimit], Field()], '{"coder": {"requests_per_minute": 60}}'
)
read_prices = _reader(TokenPrices, '{"*": {"prompt": 0.15, "completion": 0.6}}')
