"""Not the scheduler: how a model looks by the state file, and what those who wait for it are told when it is down."""

import time

from llmpod.errors import LlmpodError, ModelNotReady, NoMoney
from llmpod.model import Phase, Refusal
from llmpod.proxy.models import NoSuchModel
from llmpod.proxy.route import Destination
from llmpod.proxy.states import Sight


def no_longer(name: str, *, stays: bool) -> LlmpodError:
    """What those who wait for a model hear when the configuration has changed."""
    if stays:
        return ModelNotReady(f"{name} does not start with requests any more.", retry_after=10)
    return NoSuchModel(
        f"{name} was removed from the configuration.", hint="GET /v1/models lists those there are."
    )


def sight_of(destination: Destination | None) -> Sight:
    """Where it is, for the scheduler; None: the state does not name it."""
    if destination is None:
        return Sight.DOWN
    if destination.origin is not None:
        return Sight.READY
    at_rest = destination.phase in (Phase.STOPPED, Phase.FAILED, None)
    return Sight.DOWN if at_rest and not destination.retrying else Sight.MOVING


def why_barred(destination: Destination | None) -> LlmpodError | None:
    """Why a request may not start a model that does not answer now; None: it may, as far as is known."""
    bar = destination.barred if destination is not None and destination.origin is None else None
    if bar is None or (bar.retry_at is not None and bar.retry_at <= time.time()):
        return None
    return _as_error(bar)


def _as_error(refusal: Refusal) -> LlmpodError:
    kind = NoMoney if refusal.status == NoMoney.status else ModelNotReady
    wait = max(1.0, refusal.retry_at - time.time()) if refusal.retry_at else None
    return kind(refusal.text, hint=refusal.hint, retry_after=wait)


def why_down(name: str, destination: Destination | None, *, wished: float | None, error: str) -> LlmpodError:
    """What to tell those who wait, should the model be down.

    Args:
        name: the model's key.
        destination: what is known of it.
        wished: when it was last wished for; a refusal of another wish is not ours.
        error: what the last pass failed at.
    """
    refusal = destination.refusal if destination else None
    if refusal is not None and refusal.at == wished:
        return _as_error(refusal)
    known = destination.error if destination else ""
    failed = (
        destination is not None and destination.phase is Phase.FAILED
    )  # else that is why it was down before
    said = (failed and known) or error or known or "the manager does not say why"
    called = destination.names[0] if destination and destination.names else name
    return ModelNotReady(
        f"{called} could not be started: {said.rstrip('.')}.",
        hint="The log of the proxy says where to read more.",
    )
