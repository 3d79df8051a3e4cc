"""Not a purchase: which machines to try, in which order, and why not the others. Pure; the clock is an argument.

Rules, in this order:

* A machine that is dearer than ``max_hourly_cost``, or of unknown price while there is such a cap, is never taken.
* One that could not be had in the last three minutes is not asked for again.
* ``gpu_type_id`` as a name or a list is the user's own choice: all are tried in that order, also one that the estimate
  calls too small (the note says so). Only those of which the catalog says NONE go behind the others.
* ``auto``: every type of the catalog, with the fewest GPUs that hold the model (more of the same cost more); what is
  too small, cannot compute with the model's numbers or is out of stock is not taken; the cheapest machine comes first.
* Stock that is older than ten minutes, or of another cloud tier, is no stock: it counts as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmpod.backends.runpod_catalog import STOCK_ORDER, Catalog, Gpu
from llmpod.backends.runpod_demand import Demand, Fit
from llmpod.backends.vram import PARALLEL
from llmpod.config import AUTO_GPU, PodConfig
from llmpod.config.server_args import option, whole_number
from llmpod.model import Offer

REFUSED_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Choice:
    """``offers`` in the order in which they are tried; ``rejected`` with the nearest misses first.

    ``hopeless`` when there is no machine at all that holds the model: then waiting for stock or prices is of no use.
    """

    offers: tuple[Offer, ...]
    rejected: tuple[Offer, ...]
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A machine and how the model sits on it; ``why_not`` is empty while nothing speaks against it."""

    offer: Offer
    fit: Fit | None = None
    why_not: str = ""


def offers(
    config: PodConfig, catalog: Catalog, need: Demand | None, *, refused: Mapping[str, float], now: float
) -> Choice:
    """The machines to try.

    Args:
        config: says which GPUs, where, and the highest price.
        catalog: prices and stock.
        need: what the model asks of a machine; may be None where the GPU is named.
        refused: when which offer, by :func:`refusal_key`, could not be had (epoch seconds).
        now: epoch seconds.
    """
    auto = config.gpu_type_id == AUTO_GPU
    found = _all(config, catalog, need, now=now) if auto and need else _named(config, catalog, need, now=now)
    judged = [_judged(candidate, config, refused=refused, now=now) for candidate in found]
    taken = [candidate for candidate in judged if not candidate.why_not]
    missed = [candidate for candidate in judged if candidate.why_not]
    taken.sort(key=_by_price if auto else _by_stock)
    missed.sort(key=_by_distance)
    return Choice(
        tuple(candidate.offer for candidate in taken),
        tuple(replace(candidate.offer, note=candidate.why_not) for candidate in missed),
        hopeless=auto and not any(candidate.fit and candidate.fit.ok for candidate in judged),
    )


def refusal_key(config: PodConfig, offer: Offer) -> str:
    """What "no capacity" is remembered by: GPU type, number, cloud tier and data centers."""
    return f"{offer.gpu}|{offer.count}|{config.cloud}|{','.join(sorted(config.data_center_ids)) or '*'}"


def needed_counts(config: PodConfig, catalog: Catalog, need: Demand | None) -> tuple[int, ...]:
    """The numbers of GPUs a machine of which the stock matters, so that it is asked for these only."""
    if config.gpu_type_id != AUTO_GPU or need is None:
        return (config.gpu_count,)
    found = [_smallest(config, gpu, need) for gpu in catalog.gpus]
    return tuple(sorted({count for count, fit in found if fit is not None and fit.ok})) or (1,)


# --- candidates
def _named(config: PodConfig, catalog: Catalog, need: Demand | None, *, now: float) -> list[_Candidate]:
    """The configured types, whatever the estimate says of them."""
    return [_one_named(config, catalog, gpu_id, need=need, now=now) for gpu_id in config.gpus]


def _one_named(
    config: PodConfig, catalog: Catalog, gpu_id: str, *, need: Demand | None, now: float
) -> _Candidate:
    gpu = catalog.gpu(gpu_id)
    if gpu is None:
        offer = Offer(gpu_id, config.gpu_count, note="not in the catalog")
        return _Candidate(replace(offer, key=refusal_key(config, offer)))
    fit = need.fit(gpu.id, gpu.memory_gb, config.gpu_count) if need else None
    offer = _offer(config, catalog, gpu, count=config.gpu_count, now=now)
    notes = [_doubt(fit, need, gpu)] if fit and need else []
    notes += ["no stock, tried last"] if offer.stock == "NONE" else []
    return _Candidate(replace(offer, note="; ".join(notes)), fit)


def _doubt(fit: Fit, need: Demand, gpu: Gpu) -> str:
    """What the estimate says of a GPU that the user has named: vLLM starts when one request finds room."""
    if fit.ok or fit.obstacle:
        return fit.reason if fit.ok else f"may fail: {fit.reason}"
    one = replace(need, load=replace(need.load, requests=1))
    if one.fit(gpu.id, gpu.memory_gb, fit.need.gpus).ok:
        return f"no room for {need.load.requests} requests of full length at once: {fit.reason}"
    return f"may fail: {fit.reason}"


def _all(config: PodConfig, catalog: Catalog, need: Demand, *, now: float) -> list[_Candidate]:
    """Every type, with the fewest GPUs that hold the model."""
    return [_one_of_all(config, catalog, gpu, need=need, now=now) for gpu in catalog.gpus]


def _one_of_all(config: PodConfig, catalog: Catalog, gpu: Gpu, *, need: Demand, now: float) -> _Candidate:
    count, fit = _smallest(config, gpu, need)
    offer = _offer(config, catalog, gpu, count=count, now=now)
    if gpu.manufacturer.upper() != "NVIDIA":
        return _Candidate(offer, why_not=f"made by {gpu.manufacturer}; the image is for CUDA")
    if fit is None:
        most = gpu.most.get(config.cloud)
        return _Candidate(offer, why_not=f"at most {most} a pod" if most else f"not sold on {config.cloud}")
    if not fit.ok:
        each = f" on each of {count}" if count > 1 and not fit.obstacle else ""
        return _Candidate(offer, fit, f"{fit.reason}{each}")
    offer = replace(offer, note=fit.reason)
    return _Candidate(offer, fit, "no stock" if offer.stock == "NONE" else "")


def _smallest(config: PodConfig, gpu: Gpu, need: Demand) -> tuple[int, Fit | None]:
    """The fewest GPUs that hold the model; else the most that there are, and how they fail; None: there are none."""
    fixed = _fixed_count(config)
    most = gpu.most.get(config.cloud, max(PARALLEL))
    counts = [count for count in ((fixed,) if fixed else PARALLEL) if count <= most]
    if not counts:
        return fixed or 1, None
    fits = [(count, need.fit(gpu.id, gpu.memory_gb, count)) for count in counts]
    fitting = next(((count, fit) for count, fit in fits if fit.ok), None)
    return fitting or max(fits, key=lambda pair: (not pair[1].obstacle, pair[1].spare))


def _fixed_count(config: PodConfig) -> int | None:
    """How many GPUs the user wants per machine; None leaves it to us."""
    parts = (("--tensor-parallel-size", "-tp"), ("--pipeline-parallel-size", "-pp"))
    given = [whole_number(option(config.vllm_args, *names)) for names in parts]
    if config.gpu_count > 1 or given == [None, None]:
        return config.gpu_count if config.gpu_count > 1 else None
    return (given[0] or 1) * (given[1] or 1)


def _offer(config: PodConfig, catalog: Catalog, gpu: Gpu, *, count: int, now: float) -> Offer:
    price = gpu.usd_per_hour.get(config.cloud)
    known = catalog.fresh(now) and catalog.cloud == config.cloud
    offer = Offer(
        gpu.id,
        count,
        usd_per_hour=round(price * count, 4) if price is not None else None,
        stock=gpu.in_stock(count, config.data_center_ids) if known else "unknown",
        vram_gb=gpu.memory_gb * count,
    )
    return replace(offer, key=refusal_key(config, offer))


# --- verdicts
def _judged(
    candidate: _Candidate, config: PodConfig, *, refused: Mapping[str, float], now: float
) -> _Candidate:
    """The rules that hold for every machine, however it came to be a candidate."""
    offer, cap = candidate.offer, config.max_hourly_cost
    if candidate.why_not:
        return candidate
    if cap is not None and offer.usd_per_hour is None:
        return replace(candidate, why_not=f"its price is unknown, the cap is ${cap:.2f}/h")
    if cap is not None and offer.usd_per_hour is not None and offer.usd_per_hour > cap:
        return replace(candidate, why_not=f"over the cap of ${cap:.2f}/h")
    at = refused.get(offer.key)
    if at is not None and now - at < REFUSED_SECONDS:  # a moment of a clock that is ahead of ours counts, too
        where = f" in {', '.join(config.data_center_ids)}" if config.data_center_ids else ""
        return replace(candidate, why_not=f"no capacity {_ago(now - at)} ago{where}")
    return candidate


def _ago(seconds: float) -> str:
    seconds = max(seconds, 0)
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _by_stock(candidate: _Candidate) -> bool:
    """The user's order, but what is out of stock behind the rest (sorting is stable)."""
    return candidate.offer.stock == "NONE"


def _by_price(candidate: _Candidate) -> tuple[bool, float, int, int]:
    offer = candidate.offer
    price = offer.usd_per_hour if offer.usd_per_hour is not None else float("inf")
    return offer.stock == "unknown", price, STOCK_ORDER.index(offer.stock), offer.count


def _by_distance(candidate: _Candidate) -> tuple[int, float]:
    """What would do but for price or stock, cheapest first; then by how much is missing; then the impossible."""
    fit, price = candidate.fit, candidate.offer.usd_per_hour
    if fit is None or fit.obstacle:
        return 2, 0.0
    if fit.spare < 0:
        return 1, -fit.spare
    return 0, price if price is not None else float("inf")
