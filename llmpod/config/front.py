"""Not the proxy's own settings (``proxy.py``): the keys of ``pod_config.json`` that become them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llmpod.config.caching import ALL_MASKS, LONGEST, WEEK, CacheMask, CacheMode, CachePolicy
from llmpod.config.proxy import Auth
from llmpod.config.rates import RateLimits, TokenPrices
from llmpod.config.section import Name, Port

Patience = Annotated[float, Field(gt=0, le=24 * 3600)]


class FrontKeys(BaseModel):
    """Where the proxy listens, who may call it, what it stores, and how long it waits."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    proxy_port: Port = 8000
    proxy_host: Name = Field("127.0.0.1", description="Address the proxy listens on.")
    auth: Annotated[Auth, Field(strict=False)] = Field(
        Auth.OPEN,
        description="Who may call the proxy: every program here, those of this user, or who has a key"
        " (`manage_pod.py keys`).",
    )
    allowed_hosts: tuple[Name, ...] = Field(
        (), strict=False, description="More names, without port, under which the proxy is reached."
    )
    cors_origins: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[^/,\s*]+$")], ...] = Field(
        (), strict=False, description="Web pages that may use the proxy, as scheme://host[:port]."
    )
    requests_per_minute: Annotated[int, Field(ge=1)] | None = Field(
        None, description="That one caller (key, or address) may send; keys may have limits of their own."
    )
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = Field(
        None, description="That one caller may use, prompts and answers together."
    )
    rate_limits: RateLimits = Field(
        {},
        description="More limits by path (`/v1/embeddings`, `/v1/audio/*`), for each caller, address or all.",
    )
    token_prices: TokenPrices = Field(
        {},
        description="USD per million tokens by model (`*`: any); else a request costs a share of its machine.",
    )
    max_in_flight: Annotated[int, Field(ge=1)] = Field(
        256, description="Requests worked on at once; callers take turns for more."
    )
    proxy_memory_bytes: Annotated[int, Field(ge=0)] = Field(
        2**28,
        description="Of the proxy; above it new work is refused while other work is under way. 0: no limit.",
    )
    allow_insecure_bind: bool = Field(
        False, description="Listen beyond this machine without keys or without TLS."
    )
    allow_plain_http: bool = Field(
        False,
        description="Send prompts over http to a model server on another machine: others can read them.",
    )
    cache_dir: Path = Field(Path("/tmp/llm_cache"), strict=False)  # noqa: S108 - the mission fixed this default
    max_cache_size: Annotated[int, Field(ge=0)] = Field(1000, description="Entries.")
    max_cache_bytes: Annotated[int, Field(ge=0)] = Field(2**30, description="Bytes on disk.")
    cache_ttl_seconds: Annotated[int, Field(ge=1, le=LONGEST)] | None = Field(
        WEEK, description="How long a stored answer is served; null: for ever."
    )
    cache_policy: CachePolicy = Field(
        "always", description="Which answers are stored: one word, or one for each path (`*`: the others)."
    )
    cache_masks: tuple[CacheMask, ...] = Field(
        ALL_MASKS, strict=False, description="Rules for what changes with each call and not the question."
    )
    cache_mode: CacheMode = Field(
        "normal", description="`record`: always ask, store anew. `replay-only`: never ask. Nothing expires."
    )
    cache_pace: Annotated[int, Field(ge=0, le=10_000)] = Field(
        0, description="Events a second of a stored stream that is sent again; 0: all at once."
    )
    cache_shared: bool = Field(False, description="Callers with different keys share what is stored.")
    enable_profiling: bool = Field(False, description="Serve /debug/cache.")
    use_https: bool = False
    ssl_cert: Path | None = Field(None, strict=False)
    ssl_key: Path | None = Field(None, strict=False)
    upstream_stream: Literal["auto", "always", "never"] = Field(
        "auto", description="Whether the model server is asked to stream for clients that did not ask."
    )
    upstream_usage: Literal["auto", "always", "asked"] = Field(
        "auto",
        description="`always`: streams are asked for with token counts, so that one serves every client.",
    )
    connect_seconds: Patience = Field(5.0, strict=False, description="To connect to the model server.")
    first_byte_seconds: Patience = Field(
        300.0, strict=False, description="Until the first byte of an answer's body."
    )
    silence_seconds: Patience = Field(120.0, strict=False, description="Between two reads of an answer.")
    total_seconds: Patience = Field(3600.0, strict=False, description="For a whole answer.")
    keepalive_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        15.0, strict=False, description="How often a client is told that its answer has not begun; 0: never."
    )
    keepalive_form: Literal["auto", "comment", "event"] = Field(
        "auto", description="How streams are told; `auto`: events for clients that count only these."
    )
    keepalive_json: bool = Field(
        False, description="White space for clients that wait for a JSON document; the status is then 200."
    )
    prewarm_cache: Path | None = Field(
        None, strict=False, description="File with requests that are asked once a model is ready."
    )
    prewarm_prompts: Annotated[int, Field(ge=0, le=32)] = Field(
        0, description="How many of the most used system prompts a server that became ready is shown."
    )
    prewarm_tokens: Annotated[int, Field(ge=1, le=10**7)] = Field(
        32768, description="What these may have together, as estimated from their length."
    )
    prewarm_usd: Annotated[float, Field(ge=0, lt=1000)] = Field(
        0.01, strict=False, description="What showing them may cost, at the machine's price per hour."
    )
    finish_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        0.0, strict=False, description="How long an answer may go on to be stored when nobody listens."
    )
