"""Not a store of state: the one place that reads configuration files and the environment.

What comes out is frozen and handed down; nobody else looks at ``os.environ`` or at the JSON.
"""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmpod.config import jsonc
from llmpod.config.addresses import base_url, in_the_clear, reached_at
from llmpod.config.callers import FILE_NAME as KEYS_FILE
from llmpod.config.callers import CallerKey, Scope, digest_of, new_key, read_keys, written
from llmpod.config.certificates import expires_at
from llmpod.config.credentials import (
    SECRET_VARIABLES,
    has_runpod_key,
    key_file,
    needs_key,
    provider_key,
    runpod_key,
)
from llmpod.config.live import FIXED, changed, needs_restart
from llmpod.config.mistakes import explained
from llmpod.config.model_keys import AUTO_GPU, VLLM_PRESET
from llmpod.config.proxy import Auth, ProxySettings, proxy_settings
from llmpod.config.schema import Budget, Notification, PodConfig
from llmpod.config.settings_file import SETTINGS_VARIABLE, settings_digest
from llmpod.config.several import mistakes, values_of
from llmpod.config.ways import (
    DEFAULTS,
    SECTIONS,
    DockerSection,
    ProcessSection,
    ServerlessSection,
    SlurmSection,
    StaticSection,
)
from llmpod.errors import ConfigError

__all__ = [
    "AUTO_GPU",
    "FIXED",
    "KEYS_FILE",
    "SECRET_VARIABLES",
    "SETTINGS_VARIABLE",
    "VLLM_PRESET",
    "Auth",
    "Budget",
    "CallerKey",
    "Config",
    "DockerSection",
    "Notification",
    "PodConfig",
    "ProcessSection",
    "ProxySettings",
    "Scope",
    "ServerlessSection",
    "SlurmSection",
    "StaticSection",
    "base_url",
    "changed",
    "digest_of",
    "environment",
    "expires_at",
    "has_runpod_key",
    "in_the_clear",
    "json_schema",
    "key_file",
    "load",
    "needs_key",
    "needs_restart",
    "new_key",
    "parse",
    "provider_key",
    "proxy_settings",
    "reached_at",
    "read_keys",
    "runpod_key",
    "salvage",
    "settings_digest",
    "written",
]

S = TypeVar("S", bound=BaseModel)
DEFAULT_MODEL = "default"
_NEEDED_TO_END = ("state_file", "runpod_api_url", "runpod_proxy_url", "proxy_port", "create_grace_seconds")
MAX_BYTES = 2**20
ENDPOINT_VARIABLE = "RUNPOD_VLLM_ENDPOINT_ID"
DEFAULT_MODEL_VARIABLE = "RUNPOD_DEFAULT_MODEL"


def environment() -> Mapping[str, str]:
    """The environment of this process, as it is now."""
    return dict(os.environ)


@dataclass(frozen=True, slots=True)
class Config:
    """One configuration: the models by name, and what is common to all of them.

    ``path`` is the file it came from; relative paths inside it are already resolved against its directory. ``raw`` is
    what stands there but for its secrets, to be kept for a day on which the file is broken. ``default`` is the model
    of requests that name none; ``groups`` are those of which one runs at a time.
    """

    path: Path
    models: Mapping[str, PodConfig]
    raw: Mapping[str, Any]
    default: str = DEFAULT_MODEL
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def common(self) -> PodConfig:
        """The settings of the whole installation (proxy, cache, state, account), as one of its models has them.

        Where machines are rented, it is one of those, else one that RunPod sends a bill for: an account and its money
        are asked for by it.
        """
        rented = (model for model in self.models.values() if model.is_rented)
        billed = (model for model in self.models.values() if model.is_billed)
        return next(rented, None) or next(billed, self.models[self.default])

    @property
    def backends(self) -> set[str]:
        """The ways in which its models run."""
        return {model.backend for model in self.models.values()}

    def group_of(self, model: str) -> str:
        """The group that a model is a member of; empty: none."""
        return next((group for group, members in self.groups.items() if model in members), "")

    @property
    def state_file(self) -> Path:
        return self.common.state_file

    @property
    def directory(self) -> Path:
        """Where our own files are, beside the state file."""
        return self.state_file.parent / ".llmpod" / self.state_file.stem

    def machines(self, model: str) -> Path:
        """Where the traces of a model's machines are, whichever models there are beside it."""
        return self.directory / ("machines" if model == DEFAULT_MODEL else f"machines-{model}")

    @property
    def endpoint_notes(self) -> Path:
        """Where the use of all serverless endpoints is noted: one whose model is gone is not forgotten."""
        return self.directory / "machines"

    def with_removed(self, snapshots: Mapping[str, Mapping[str, Any]]) -> "Config":
        """With models that stand here no more, as far as what was remembered of each (``raw``) says how it runs."""
        models = dict(self.models)
        for name, snapshot in snapshots.items():
            with suppress(ValidationError):
                found = PodConfig.model_validate(snapshot)
                models.setdefault(name, found.model_copy(update={"state_file": self.state_file}))
        return replace(self, models=MappingProxyType(models))


def load(path: Path, environ: Mapping[str, str]) -> Config:
    """Read ``pod_config.json``.

    Args:
        path: the file.
        environ: gives ``HF_TOKEN`` and ``RUNPOD_API_BASE_URL`` where the file is silent.

    Raises:
        ConfigError: missing, too large, malformed or wrong, with path, reason and the nearest valid key.
    """
    path = path.absolute()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {path}.", hint='The smallest one is {"model": "Qwen/Qwen2.5-7B-Instruct"}.'
        ) from None
    except OSError as e:
        raise ConfigError(f"Cannot read {path}: {e.strerror}.") from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"Cannot read {path}: {e}.") from None
    return parse(jsonc.parse(text, where=str(path)), path=path, environ=environ)


def salvage(path: Path, environ: Mapping[str, str]) -> Config:
    """What of a wrong configuration is needed to end pods: where the state and the provider are.

    Each key that is valid by itself is kept; without a readable file the defaults serve.
    """
    path = path.absolute()
    raw: dict[str, Any] = {}
    with suppress(OSError):
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            raw = jsonc.parse(text, where=str(path))
        except ConfigError:  # what can still be read of it: where the pods are written down, and whom to ask
            raw = dict(
                re.findall(r'^\s*"(state_file|runpod_api_url)"\s*:\s*"([^"\\\n]*)"', text, re.MULTILINE)
            )
    kept: dict[str, Any] = {"model": "unknown"}
    known = {name: environ[name] for name in (ENDPOINT_VARIABLE,) if name in environ}
    for name in (*SECTIONS, "backend", *_NEEDED_TO_END):
        if name not in raw:
            continue
        with suppress(ConfigError):
            parse({**kept, name: raw[name]}, path=path, environ=known)
            kept[name] = raw[name]
    if raw.get("models"):  # machines are known by the names of their models
        needed = {
            name: raw[name] for name in ("backend", "start", "models", "groups", *SECTIONS) if name in raw
        }
        several = {name: value for name, value in {**kept, **needed}.items() if name != "model"}
        with suppress(ConfigError):
            return parse(several, path=path, environ=environ)
    return parse(kept, path=path, environ=environ)


def parse(raw: Mapping[str, Any], *, path: Path, environ: Mapping[str, str]) -> Config:
    """Validate an already parsed document; see :func:`load`."""
    way = raw.get("backend")
    values = {**(DEFAULTS.get(way, {}) if isinstance(way, str) else {}), **raw}
    if token := environ.get("HF_TOKEN"):
        values.setdefault("hf_token", token)
    if url := environ.get("RUNPOD_API_BASE_URL"):
        values.setdefault("runpod_api_url", url)
    if way == "runpod_serverless":
        values = _of_endpoint(values, environ)
    try:
        config = PodConfig.model_validate(values)
    except ValidationError as e:
        raise explained(e, path) from None
    if config.models:
        return _several(config, values, path=path, raw=raw)
    return Config(path, MappingProxyType({DEFAULT_MODEL: _resolved(config, path.parent)}), _open(raw))


def _several(whole: PodConfig, values: Mapping[str, Any], *, path: Path, raw: Mapping[str, Any]) -> Config:
    """One configuration for each of ``models``. Raises ConfigError."""
    models = dict[str, PodConfig]()
    for name, own in values_of(values).items():
        try:
            models[name] = _resolved(PodConfig.model_validate(own), path.parent)
        except ValidationError as e:
            raise explained(e, path, of=("models", name)) from None
    groups = {name: group.members for name, group in whole.groups.items()}
    default = whole.default_model or next(iter(models))
    if wrong := list(mistakes(models, groups, default)):
        raise ConfigError("\n  ".join((f"{path} is not valid:", *wrong)))
    return Config(path, MappingProxyType(models), _open(raw), default, MappingProxyType(groups))


def _of_endpoint(values: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """With the endpoint and the model that RunPod's own examples have in the environment."""
    section, model = values.get("runpod_serverless"), environ.get(DEFAULT_MODEL_VARIABLE)
    named = {**values}
    if (endpoint := environ.get(ENDPOINT_VARIABLE)) and isinstance(section, dict):
        named["runpod_serverless"] = {"endpoint_id": endpoint, **section}
    if model and not {"model", "modelStoreId", "models"} & values.keys():
        named["model"] = model
    return named


def _open(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What may be written down again: a watch goes on without the token and the webhooks."""
    kept = {name: value for name, value in raw.items() if name not in ("hf_token", "notifications")}
    if isinstance(models := kept.get("models"), Mapping):
        kept["models"] = {name: _open(own) for name, own in models.items() if isinstance(own, Mapping)}
    return kept


def _resolved(config: PodConfig, base: Path) -> PodConfig:
    """With absolute paths, those in the section of its backend included."""
    section = getattr(config, config.backend, None) if config.backend in SECTIONS else None
    own: dict[str, Any] = {config.backend: _absolute(section, base)} if section is not None else {}
    return _absolute(config, base).model_copy(update=own)


def _absolute(settings: S, base: Path) -> S:
    paths = {name: value for name, value in settings if isinstance(value, Path)}
    return settings.model_copy(update={name: base / path.expanduser() for name, path in paths.items()})


def json_schema() -> str:
    """The JSON Schema of ``pod_config.json`` for editors, as text."""
    schema = PodConfig.model_json_schema(by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
