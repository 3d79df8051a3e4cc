"""Not a time-out of sockets: bounds in time whatever is asked of somebody who is not trusted.

The limits of ``requests`` and of sockets hold for each read: a name server that is silent, or a header that comes
byte by byte, keeps a caller for ever.
"""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def bounded(ask: Callable[[], T], seconds: float) -> T:
    """What ``ask`` returns or raises, when that is within so many seconds.

    Otherwise its thread is left behind; it ends with the process, and what it finds later goes nowhere. So ``ask``
    must change nothing that others look at.

    Raises:
        TimeoutError: the time is over.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except BaseException as e:  # whatever it is belongs to the caller, in the caller's thread
            answer.set_exception(e)

    Thread(target=run, daemon=True).start()
    return answer.result(timeout=max(0.0, seconds))
