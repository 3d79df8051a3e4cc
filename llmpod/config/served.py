"""Not the configuration: what of it decides the answers, as one name for cache keys. Pure."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

_DECIDES: Final = ("vllm_args", "template_id")
_DECIDES_IN_SECTION: Final = ("command", "image", "container", "url")


def identity_of(config: Mapping[str, Any]) -> str:
    """Names what answers: the model with its revision and, where they are not the defaults, how it is served.

    Never the machine, its GPU or its limits: answers outlive these.

    Args:
        config: keys and values of ``pod_config.json``, defaults left out.
    """
    model = str(config.get("model") or config.get("modelStoreId") or "")
    decides = {name: config[name] for name in _DECIDES if config.get(name)}
    section = config.get(str(config.get("backend")))
    if isinstance(section, Mapping):
        decides |= {name: section[name] for name in _DECIDES_IN_SECTION if section.get(name)}
    if not decides:
        return model
    return f"{model}#{sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]}"
