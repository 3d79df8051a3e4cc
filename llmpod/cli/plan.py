"""Not a decision: how a drawn specification looks to a person: needs, priced candidates, reasons, expected start."""

from rich.console import Console
from rich.table import Table

from llmpod.backends.runpod_catalog import Catalog, mistakes
from llmpod.backends.runpod_switch import describe
from llmpod.cli.draw import Drawn
from llmpod.cli.show import moment
from llmpod.cli.wiring import Plane
from llmpod.config import PodConfig
from llmpod.errors import StateError
from llmpod.lifecycle.money import dollars
from llmpod.lifecycle.store import Store
from llmpod.model import Offer
from llmpod.text import duration

NEAREST = 5
# What a start takes when none was measured yet: assumptions, said as such wherever they are shown.
IMAGE_SECONDS = 120.0
DOWNLOAD_BYTES_PER_SECOND = 200e6
LOAD_BYTES_PER_SECOND = 1e9
ENGINE_SECONDS = 90.0


def print_plans(plane: Plane, console: Console, *, keep: bool, verbose: bool) -> set[str]:
    """What would be created for each model, by RunPod's prices of now.

    Args:
        plane: knows the models.
        console: where to print.
        keep: write the catalog down; a dry run changes nothing.
        verbose: all rejected candidates, not only the nearest.

    Returns:
        The models for which there is no candidate.

    Raises:
        LlmpodError: it cannot be told.
    """
    without = set[str]()
    try:
        refused = plane.store.load().refused
    except StateError:  # said by whoever needs the state
        refused = {}
    for model, config in plane.config.models.items():
        if not config.is_rented:
            console.print(_without_market(config), highlight=False, markup=False)
            continue
        drawn = plane.drawer.draw(config, refused, latest=True, keep=keep)
        if not drawn.spec.offers:
            without.add(model)
        print_plan(config, drawn, plane.store, console=console, now=plane.clock(), verbose=verbose)
    return without


def _without_market(config: PodConfig) -> str:
    where = f"Model {config.hub_id} on the backend {config.backend}"
    if (section := config.runpod_serverless) is not None and config.is_billed:
        many = f"{section.min_workers} to {section.max_workers} workers" if section.park else "its workers"
        return f"{where}: RunPod bills {many} of endpoint {section.endpoint_id} by the second."
    return f"{where}: there is nothing to choose and nothing to pay here."


def print_plan(
    config: PodConfig, drawn: Drawn, store: Store, *, console: Console, now: float, verbose: bool
) -> None:
    """Everything a person wants to know before a pod is paid for.

    Args:
        config: the model's configuration.
        drawn: what would be created.
        store: knows how long earlier starts took.
        console: where to print.
        now: epoch seconds.
        verbose: all rejected candidates, not only the nearest.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    spec = drawn.spec
    say(f"Model {config.hub_id}, {config.cloud} cloud; prices from {catalog_age(drawn.catalog, now)}.")
    if drawn.trouble:
        say(f"RunPod's catalog is out of reach: {drawn.trouble}")
    say(needs(drawn))
    console.print(plan_table(spec.offers, config.runtime_seconds))
    _print_rejected(spec.rejected, console, verbose=verbose)
    for mistake in mistakes(config, drawn.catalog):
        say(mistake)
    say(f"Disk {spec.disk_gb} GB. First answer {expected_start(spec.model, spec.weights_bytes, store)}.")
    if spec.min_cuda:
        say(f"Only hosts with CUDA {spec.min_cuda} or newer (by the image's tag or min_cuda_version).")
    switch = describe(spec)
    say(f"{switch[0].upper()}{switch[1:]}.")


def needs(drawn: Drawn) -> str:
    """One line: what the model needs, on the first candidate, and who says so."""
    if drawn.demand is None:
        return f"What the model needs is not known: {drawn.source}"
    first = next(iter(drawn.spec.offers), None)
    count = first.count if first else 1
    vram = (first.vram_gb or 0) // count if first else 0
    fit = drawn.demand.fit(first.gpu if first else "", vram, count)
    text = f"On {count} x {first.gpu} it {fit}" if first and vram else f"It {fit.need}"
    return f"{text} (by {drawn.source})."


def plan_table(offers: tuple[Offer, ...], runtime_seconds: float) -> Table:
    """The priced candidates in the order in which they are tried."""
    table = Table(title="GPU candidates, tried in this order", title_justify="left")
    for column in ("#", "GPU", "VRAM", "stock", "per hour", "whole run", "note"):
        table.add_column(
            column, justify="right" if column in ("#", "VRAM", "per hour", "whole run") else "left"
        )
    for number, offer in enumerate(offers, 1):
        whole = offer.usd_per_hour * runtime_seconds / 3600 if offer.usd_per_hour is not None else None
        table.add_row(
            str(number),
            _machine(offer),
            f"{offer.vram_gb} GB" if offer.vram_gb else "-",
            offer.stock,
            dollars(offer.usd_per_hour),
            dollars(whole),
            offer.note,
        )
    return table


def _print_rejected(rejected: tuple[Offer, ...], console: Console, *, verbose: bool) -> None:
    if not rejected:
        return
    shown = rejected if verbose else rejected[:NEAREST]
    table = Table(title="Not taken, the nearest first", title_justify="left")
    for column in ("GPU", "VRAM", "per hour", "why not"):
        table.add_column(column, justify="right" if column in ("VRAM", "per hour") else "left")
    for offer in shown:
        memory = f"{offer.vram_gb} GB" if offer.vram_gb else "-"
        table.add_row(_machine(offer), memory, dollars(offer.usd_per_hour), offer.note)
    console.print(table)
    if len(rejected) > len(shown):
        console.print(f"… and {len(rejected) - len(shown)} more (--verbose shows all).", highlight=False)


def expected_start(model: str, weights_bytes: int | None, store: Store) -> str:
    """When the first answer may come: as measured here, else by the size of the weights at stated rates."""
    if measured := store.typical_start(model):
        seconds, starts = measured
        return f"after about {duration(seconds)} (median of {starts} measured starts)"
    if weights_bytes is None:
        return "after an unknown time (the size of the weights is not known)"
    download = weights_bytes / DOWNLOAD_BYTES_PER_SECOND
    seconds = IMAGE_SECONDS + download + weights_bytes / LOAD_BYTES_PER_SECOND + ENGINE_SECONDS
    rate = f"{weights_bytes / 1e9:.1f} GB at an assumed {DOWNLOAD_BYTES_PER_SECOND / 1e6:.0f} MB/s"
    return (
        f"after about {duration(seconds)} (estimate: {rate} {duration(download)}, the rest image and loading)"
    )


def catalog_age(catalog: Catalog, now: float) -> str:
    """Where a catalog's figures come from."""
    if catalog.fetched_at is None:
        return "the built-in list, which has none (run --refresh-catalog)"
    return f"RunPod's catalog of {moment(catalog.fetched_at)}, {duration(now - catalog.fetched_at)} old"


def _machine(offer: Offer) -> str:
    return f"{offer.count} x {offer.gpu}" if offer.count > 1 else offer.gpu
