"""Not the loader: what ``models`` and ``groups`` mean, from one document to the values of each model. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from llmpod.config.schema import PodConfig
from llmpod.config.ways import DEFAULTS

_OF_THE_WHOLE = frozenset({"models", "groups", "default_model", "schema_ref", "$schema"})


def values_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each model's keys are: its own, then those beside ``models``, then those of its backend.

    Args:
        values: the document, already valid as a whole.
    """
    shared = {name: value for name, value in values.items() if name not in _OF_THE_WHOLE}
    found = dict[str, dict[str, Any]]()
    for name, section in values["models"].items():
        own = {**shared, **section}
        way = own.get("backend", PodConfig.model_fields["backend"].default)
        found[name] = {**DEFAULTS.get(way, {}), **own, "path": own.get("path") or f"/{name}"}
    return found


def mistakes(
    models: Mapping[str, PodConfig], groups: Mapping[str, tuple[str, ...]], default: str
) -> Iterator[str]:
    """What is wrong between models that are each right, one line each."""
    if default not in models:
        yield f"default_model: there is no model {default!r}."
    placed = dict[str, str]()
    for group, members in groups.items():
        for member in members:
            if member not in models:
                yield f"groups.{group}: there is no model {member!r}."
            elif member in placed:
                yield f"groups.{group}: {member!r} is in {placed[member]!r} already."
            elif not models[member].on_request:
                yield f'groups.{group}: {member!r} needs `start`: "on_request", to be stopped for another one.'
            placed[member] = group
    yield from (f"models.{name}: /v1 is everybody's path." for name, m in models.items() if m.path == "/v1")
    yield from _taken("endpoint", {name: _endpoint(model) for name, model in models.items()})
    yield from _taken("path", {name: (model.path or "",) for name, model in models.items()})
    yield from _taken("name", {name: (name, *model.aliases) for name, model in models.items()})


def _endpoint(model: PodConfig) -> tuple[str, ...]:
    """The serverless endpoint that a model opens and parks, if it has one: its limits have one owner."""
    section = model.runpod_serverless if model.backend == "runpod_serverless" else None
    return (section.endpoint_id,) if section is not None else ()


def _taken(what: str, of: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    owners = dict[str, str]()
    for name, values in of.items():
        for value in values:
            if owners.setdefault(value, name) != name:
                yield f"models.{name}: the {what} {value!r} is taken by {owners[value]!r}."
