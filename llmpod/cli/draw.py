"""Not a decision: brings configuration, model hub and catalog together into what to create; keeps the last catalog."""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from llmpod.backends import runpod_catalog, runpod_offers
from llmpod.backends.hub import Hub
from llmpod.backends.hub_texts import Unmeasured
from llmpod.backends.runpod_api import RunpodApi
from llmpod.backends.runpod_catalog import BUILT_IN, Catalog
from llmpod.backends.runpod_demand import Demand, demand, model_of
from llmpod.backends.runpod_offers import Choice, needed_counts
from llmpod.backends.runpod_spec import pod_spec
from llmpod.config import AUTO_GPU, VLLM_PRESET, PodConfig
from llmpod.errors import (
    BadSpec,
    ProviderError,
    ProviderUnavailable,
    Refused,
    StateError,
)
from llmpod.lifecycle import files
from llmpod.lifecycle.store import Store
from llmpod.model import Spec


@dataclass(frozen=True, slots=True)
class Drawn:
    """What to create, and what that stands on.

    Args:
        spec: the specification.
        demand: what the model asks of a machine; None when nobody knows.
        source: who told the model's size, or why nobody did.
        catalog: where prices and stock are from.
        trouble: why that is not RunPod's word of now; empty when it is.
    """

    spec: Spec
    demand: Demand | None
    source: str
    catalog: Catalog
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws specifications for the pods of one account.

    Args:
        store: where the last catalog is kept.
        api: RunPod.
        clock: epoch seconds.
    """

    store: Store
    api: RunpodApi
    clock: Callable[[], float]

    def draw(
        self, config: PodConfig, refused: Mapping[str, float], *, latest: bool = False, keep: bool = True
    ) -> Drawn:
        """What to create for one model.

        Args:
            config: the model's configuration.
            refused: when which offer could not be had (epoch seconds).
            latest: ask RunPod even when the last catalog is only minutes old.
            keep: write a fresh catalog down; a dry run changes nothing.

        Raises:
            LlmpodError: what is needed cannot be learned, or no machine holds the model; the hint says what to do.
        """
        needs, source = self.demand(config)
        catalog, trouble = self.catalog(config, needs, latest=latest, keep=keep)
        choice = runpod_offers.offers(config, catalog, needs, refused=refused, now=self.clock())
        if choice.hopeless:
            _give_up(config, needs, choice)
        spec = pod_spec(config, choice.offers, choice.rejected, demand=needs)
        return Drawn(spec, needs, source, catalog, trouble)

    def demand(self, config: PodConfig) -> tuple[Demand | None, str]:
        """What the model asks of a machine, and who says so; a GPU that is named can do without.

        Raises:
            LlmpodError: there is no such model, or it is gated; with ``auto`` also when its size cannot be learned.
        """
        auto = config.gpu_type_id == AUTO_GPU
        if config.template_id != VLLM_PRESET and not auto:
            return None, "the template decides what runs"
        try:
            with closing(Hub(config.hub_url, config.hf_token)) as hub:
                model = model_of(config, hub)
            return demand(config, model), model.source
        except (Unmeasured, ProviderUnavailable) as e:
            if auto:
                raise
            return None, e.message

    def catalog(
        self, config: PodConfig, needs: Demand | None = None, *, latest: bool = False, keep: bool = True
    ) -> tuple[Catalog, str]:
        """The catalog of at most ten minutes ago, else the last one known and why it is that.

        Raises:
            ProviderUnavailable: only an old one is there, and a choice by price may not stand on it.
            Refused: RunPod answered, and no later try will be better.
        """
        known, now = self.known_catalog(), self.clock()
        counts = needed_counts(config, known, needs)
        if not latest and known.fresh(now) and _covers(known, config, counts):
            return known, ""
        try:
            fresh = runpod_catalog.fetch(self.api, config, now=now, counts=counts)
        except Refused:
            raise
        except ProviderError as e:
            if _needs_prices(config) and not latest:
                raise ProviderUnavailable(
                    f"The prices of now are not known: {e.message}",
                    hint="A pod is only bought by price, cap or budget when RunPod's catalog answers.",
                    retry_after=e.retry_after,
                ) from None
            return known, e.message
        if keep:
            files.write_atomic(self.store.catalog_file, json.dumps(fresh.as_dict()))
        return fresh, ""

    def known_catalog(self) -> Catalog:
        """The last one that was fetched, else the built-in one, which has no prices."""
        try:
            document = files.read_json(self.store.catalog_file)
            return runpod_catalog.from_dict(document) if document else BUILT_IN
        except (StateError, KeyError, TypeError, ValueError, AttributeError):
            return BUILT_IN


def _covers(catalog: Catalog, config: PodConfig, counts: tuple[int, ...]) -> bool:
    """Whether the catalog was asked about these numbers of GPUs in this tier."""
    asked = {int(count) for gpu in catalog.gpus for count in gpu.stock}
    return catalog.cloud == config.cloud and set(counts) <= asked


def _needs_prices(config: PodConfig) -> bool:
    return config.gpu_type_id == AUTO_GPU or config.max_hourly_cost is not None or config.budget is not None


def _give_up(config: PodConfig, needs: Demand | None, choice: Choice) -> None:
    """Raises BadSpec: waiting does not make GPUs larger."""
    nearest = "; ".join(f"{o.count} x {o.gpu}: {o.note}" for o in choice.rejected[:3])
    need = f" With one GPU it {needs.fit('', 0, 1).need}." if needs else ""
    raise BadSpec(
        f"No machine in RunPod's catalog holds {config.hub_id} ({nearest}).{need}",
        hint="Lower max_model_len or concurrent_requests, add `--kv-cache-dtype fp8` to vllm_args,"
        " or take a quantized model.",
        param="gpu_type_id",
    )
