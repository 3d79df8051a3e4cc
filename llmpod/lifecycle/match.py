"""Not a provider: how a machine's name says whose it is. Pure.

A name is ``llmpod-<install id>-<model tag>-<nonce>``: unique for every create call, so that a look-up by exact
name attributes a machine without guessing, and so that two installations on one account never touch each other's.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence

from llmpod.model import Instance, Record

_PRODUCT = "llmpod"
_NAME = rf"{_PRODUCT}-[0-9a-f]{{8}}-(?P<tag>[0-9a-f]{{6}})-[0-9a-f]+$"


def prefix(install_id: str) -> str:
    """What every name of this installation starts with."""
    return f"{_PRODUCT}-{install_id}-"


def new_name(install_id: str, model: str, nonce: str) -> str:
    """A name for one create call (45 characters at most; RunPod is known to accept 60)."""
    return f"{prefix(install_id)}{_tag(model)}-{nonce}"


def made_by(marks: Iterable[str], instance: Instance) -> bool:
    """Whether an installation with one of these ids made it, by its name."""
    return instance.name.startswith(tuple(map(prefix, marks)))


def of_any_installation(instance: Instance) -> bool:
    """Whether some installation of llmpod made it, by its name."""
    return re.match(_NAME, instance.name) is not None


def owner(name: str, models: Iterable[str]) -> str | None:
    """The model that a machine of ours was made for, by its name; None when no configured model bears that tag."""
    found = re.match(_NAME, name)
    return next((model for model in models if found and _tag(model) == found["tag"]), None)


def find(record: Record, instances: Iterable[Instance]) -> Instance | None:
    """The machine that a record is about: by id when it is known, else by its unique name."""
    if not record.name:
        return None
    same = [i for i in instances if i.id == record.instance_id or i.name == record.name]
    return min(same, key=lambda i: i.id != record.instance_id, default=None)


def orphans(records: Sequence[Record], instances: Sequence[Instance]) -> list[Instance]:
    """Machines of ours that no record is about."""
    known = {found.id for record in records if (found := find(record, instances))}
    return [i for i in instances if i.id not in known]


def _tag(model: str) -> str:
    return hashlib.sha256(model.encode()).hexdigest()[:6]
