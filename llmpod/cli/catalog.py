"""Not the catalog: fetching it for a command, keeping it on disk, falling back honestly, and checking ids."""

import json

from rich.console import Console
from rich.table import Table

from llmpod.backends import runpod_catalog
from llmpod.backends.runpod_catalog import Catalog
from llmpod.backends.runpod_pod import RunpodPods
from llmpod.cli.command import Invocation
from llmpod.cli.show import catalog_age, dollars
from llmpod.cli.wiring import Plane, cached_catalog
from llmpod.errors import BadSpec, ProviderError
from llmpod.lifecycle import files


def current_catalog(plane: Plane, backend: RunpodPods, *, keep: bool = True) -> tuple[Catalog, str]:
    """The catalog as RunPod tells it now, else the last one known; and in words which it is.

    Args:
        plane: where the last one is kept.
        backend: whom to ask.
        keep: write a fresh one down for later; a dry run changes nothing.
    """
    try:
        catalog = runpod_catalog.fetch(backend.api, plane.config.common, now=plane.clock())
    except ProviderError as e:
        catalog = cached_catalog(plane.store)
        return (
            catalog,
            f"{catalog_age(catalog, plane.clock())} (RunPod's catalog is out of reach: {e.message})",
        )
    if keep:
        files.write_atomic(plane.store.catalog_file, json.dumps(catalog.as_dict()))
    return catalog, catalog_age(catalog, plane.clock())


def refresh(call: Invocation) -> int:
    """``--refresh-catalog``: fetch, keep, check the configuration's ids.

    Raises:
        BadSpec: an id is unknown; the nearest valid ones are named.
    """
    with call.plane() as plane:
        assert isinstance(plane.backend, RunpodPods)
        return _refresh(plane, plane.backend, call.console, verbose=call.verbose)


def _refresh(plane: Plane, backend: RunpodPods, console: Console, *, verbose: bool) -> int:
    catalog, origin = current_catalog(plane, backend)
    console.print(
        f"Catalog: {len(catalog.gpus)} GPU types, {len(catalog.data_centers)} data centers; {origin}."
    )
    if verbose:
        _print_all(catalog, console)
    for name, config in plane.config.models.items():
        if wrong := runpod_catalog.mistakes(config, catalog):
            raise BadSpec(" ".join(wrong), hint=f"Correct {plane.config.path}.")
        console.print(runpod_catalog.note_template(config, catalog), highlight=False, markup=False)
        console.print(_note_model(name, config.modelStoreId, config.hub_id), highlight=False, markup=False)
    return 0


def _note_model(name: str, alias: str | None, hub_id: str) -> str:
    """RunPod's pod API knows no model store, and nothing here pretends that it does."""
    if alias:
        return f"{name}: modelStoreId {alias} is used as the Hugging Face id; RunPod has no model store for pods."
    return f"{name}: model {hub_id} (a Hugging Face id; downloaded by the pod at its start)."


def _print_all(catalog: Catalog, console: Console) -> None:
    table = Table()
    for column in ("GPU type id", "VRAM", "secure", "community", "stock", "data centers"):
        table.add_column(column)
    for gpu in catalog.gpus:
        prices = [dollars(gpu.usd_per_hour.get(tier)) for tier in ("SECURE", "COMMUNITY")]
        table.add_row(gpu.id, f"{gpu.memory_gb} GB", *prices, gpu.stock, " ".join(gpu.data_centers))
    console.print(table)
    console.print(f"Data centers: {', '.join(catalog.data_centers) or 'unknown'}", highlight=False)
    for template_id, name in catalog.templates.items():
        console.print(f"template {template_id}  {name}", highlight=False, markup=False)
