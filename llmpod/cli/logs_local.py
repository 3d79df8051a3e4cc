"""Not RunPod's logs: ``logs`` for the backends whose machines' output we can read ourselves."""

import time
from collections.abc import Sequence

from llmpod.backends import Speaking
from llmpod.cli.wiring import Plane
from llmpod.errors import LlmpodError
from llmpod.lifecycle.lastwords import LastWords
from llmpod.veil import Veil

FOLLOWED_LINES = 2000
PAUSE_SECONDS = 0.5


def local_log(plane: Plane, models: Sequence[str], *, tail: int, follow: bool) -> int:
    """Print what the model's machine says.

    Args:
        plane: the control plane.
        models: whose; the first of them that has a machine is shown.
        tail: how many past lines.
        follow: go on until Ctrl-C.

    Raises:
        LlmpodError: there is no machine, or the backend keeps no log.
    """
    backend = plane.backend
    if not isinstance(backend, Speaking):
        raise LlmpodError(f"The backend {plane.config.common.backend} has no log that we can read.")
    records = plane.store.load().records
    record = next((records[m] for m in models if m in records and records[m].instance_id), None)
    if record is None or record.instance_id is None:
        return _last_words(plane)
    plane.store.pod_key(record.name)  # so that the veil knows it
    shown = backend.tail(record.instance_id, tail)
    _print(shown, plane.store.veil)
    before = backend.tail(record.instance_id, FOLLOWED_LINES)
    while follow:
        time.sleep(PAUSE_SECONDS)
        now = backend.tail(record.instance_id, FOLLOWED_LINES)
        _print(news(before, now), plane.store.veil)
        before = now
    return 0


def news(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """The lines of ``now`` that come after those of ``before``; both are ends of one growing log."""
    for start in range(len(before) + 1):
        rest = before[start:]
        if list(now[: len(rest)]) == list(rest):
            return now[len(rest) :]
    return now


def _last_words(plane: Plane) -> int:
    kept = LastWords.of(plane.store.directory, plane.store.veil)
    if not (text := kept.read()):
        raise LlmpodError("Nothing runs now, and no start has failed yet.", hint="`up` starts it.")
    _print(text.splitlines(), plane.store.veil)
    raise LlmpodError(f"Nothing runs now. The lines above are kept in {kept.path}.")


def _print(lines: Sequence[str], veil: Veil) -> None:
    for line in lines:
        print(veil.mask(line), flush=True)
