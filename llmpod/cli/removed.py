"""Not a configuration that anybody wrote: the present one with models that were removed and still have a machine."""

from collections.abc import Mapping

from llmpod.config import Config, needs_key, provider_key
from llmpod.errors import BadCredentials, StateError
from llmpod.lifecycle.store import Store
from llmpod.model import Phase
from llmpod.secret import Secret


def with_removed(
    config: Config, store: Store, key: Secret, environ: Mapping[str, str]
) -> tuple[Config, Secret]:
    """With the models that were removed and still have a machine, and the key that these need.

    Not beside a serverless endpoint, which is used alone: what is left there, the audit ends.
    """
    try:
        records = store.load().records
    except StateError:  # a pass says so
        return config, key
    there = {
        name: record.config
        for name, record in records.items()
        if name not in config.models and record.phase not in (Phase.STOPPED, Phase.FAILED)
    }
    whole = config.with_removed(there)
    kinds = {model.backend for model in whole.models.values()}
    if len(whole.models) == len(config.models) or "runpod_serverless" in kinds:
        return config, key
    if any(map(needs_key, kinds)) and not needs_key(config.common.backend):
        try:
            key = provider_key("runpod", environ)
        except BadCredentials:  # a pass says that they are out of reach
            return config, key
    return whole, key
