"""Not a scheduler: whom of the others a model must wait for before it may be started. Pure."""

from collections.abc import Mapping

from llmpod.lifecycle.act import Managed
from llmpod.model import Phase, Record

LOOK_SECONDS = 3.0  # between two looks whether it has made room


def taken_by(model: str, known: Mapping[str, Managed], records: Mapping[str, Record]) -> str:
    """Who still has what this model needs; empty: nobody.

    A member of its group, for together they do not fit; a model, removed or not, that uses the same thing, for what
    ends that one would end this one, too.

    Args:
        model: that is to be started.
        known: all models, those that were removed among them.
        records: theirs.
    """
    mine = known[model]
    for other, theirs in known.items():
        together = mine.terms.group and theirs.terms.group == mine.terms.group
        same = mine.holds and theirs.holds == mine.holds
        if other != model and (together or same) and _is_there(records.get(other, Record())):
            return other
    return ""


def _is_there(record: Record) -> bool:
    return record.phase not in (Phase.STOPPED, Phase.FAILED)
