"""Not the catalog: shows it, says how old it is, and checks the configuration's ids against it and the model hub."""

from contextlib import closing

from rich.console import Console
from rich.table import Table

from llmpod.backends import runpod_catalog
from llmpod.backends.hub import Hub
from llmpod.backends.hub_texts import Unmeasured
from llmpod.backends.runpod_catalog import Catalog
from llmpod.cli.command import Command, Invocation
from llmpod.cli.plan import catalog_age
from llmpod.cli.wiring import Plane
from llmpod.config import PodConfig
from llmpod.errors import BadSpec, ProviderUnavailable
from llmpod.lifecycle.money import dollars


def refresh(call: Invocation) -> int:
    """``--refresh-catalog``: fetch, keep, check the configuration's ids; with ``--verbose`` list everything.

    Raises:
        BadSpec: an id is unknown; the nearest valid ones are named.
    """
    with call.plane() as plane:
        return _refresh(plane, call, whole=call.verbose)


def show(call: Invocation) -> int:
    """``catalog``: the same, and the list in any case."""
    with call.plane() as plane:
        return _refresh(plane, call, whole=True)


def _refresh(plane: Plane, call: Invocation, *, whole: bool) -> int:
    if not plane.config.common.is_rented:
        call.say(
            f"The backend {plane.config.common.backend} has no catalog: nothing is chosen or bought there."
        )
        return 0
    catalog, trouble = plane.drawer.catalog(plane.config.common, latest=True)
    age = catalog_age(catalog, plane.clock())
    reach = f" (RunPod's catalog is out of reach: {trouble})" if trouble else ""
    call.say(
        f"Catalog: {len(catalog.gpus)} GPU types, {len(catalog.data_centers)} data centers; {age}{reach}."
    )
    if whole:
        _print_all(catalog, call.console)
    for name, config in plane.config.models.items():
        if wrong := runpod_catalog.mistakes(config, catalog):
            raise BadSpec(" ".join(wrong), hint=f"Correct {plane.config.path}.")
        call.say(runpod_catalog.note_template(config, catalog))
        call.say(f"{name}: {_note_model(config)}")
    return 0


def _note_model(config: PodConfig) -> str:
    """RunPod's pod API knows no model store, and nothing here pretends that it does.

    Raises:
        BadSpec: the hub has no such model.
        BadCredentials: it is gated.
    """
    repo_id, _, revision = config.hub_id.partition("@")
    what = f"model {config.hub_id} (a Hugging Face id; the pod downloads it at its start)"
    if config.modelStoreId:
        what = (
            f"modelStoreId {config.modelStoreId} stands for the Hugging Face id {config.hub_id};"
            " RunPod has no model store for pods"
        )
    try:
        with closing(Hub(config.hub_url, config.hf_token)) as hub:
            found = hub.look_up(repo_id, revision)
    except Unmeasured as e:
        return f"{what}. It exists; its size is not known: {e.message}"
    except ProviderUnavailable as e:
        return f"{what}. Not checked: {e.message}"
    return f"{what}. It exists: {found.stored_bytes / 1e9:.1f} GB of weights, revision {found.revision[:8]}."


def _print_all(catalog: Catalog, console: Console) -> None:
    table = Table()
    for column in ("GPU type id", "VRAM", "secure", "community", f"stock ({catalog.cloud})", "data centers"):
        table.add_column(column)
    for gpu in catalog.gpus:
        prices = [dollars(gpu.usd_per_hour.get(tier)) for tier in ("SECURE", "COMMUNITY")]
        asked = min((int(count) for count in gpu.stock), default=1)
        table.add_row(gpu.id, f"{gpu.memory_gb} GB", *prices, gpu.in_stock(asked), " ".join(gpu.centers))
    console.print(table)
    console.print(f"Data centers: {', '.join(catalog.data_centers) or 'unknown'}", highlight=False)
    for template_id, name in catalog.templates.items():
        console.print(f"template {template_id}  {name}", highlight=False, markup=False)


CATALOG = Command(
    "catalog", "GPU types with prices, stock and data centers; checks the configuration's ids", show
)
