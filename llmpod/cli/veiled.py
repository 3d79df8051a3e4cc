"""Not a log: standard output and error of this process, without the secrets that are known at the time of writing."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from llmpod.veil import Veil


class _Veiled:
    """A stream in all but what is written to it. A secret in pieces, written one by one, is not recognised."""

    def __init__(self, stream: TextIO, veil: Veil) -> None:
        self._stream = stream
        self._veil = veil

    def write(self, text: str) -> int:
        self._stream.write(self._veil.live(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def veiled(veil: Veil) -> Iterator[None]:
    """While this lasts, whatever is printed goes through ``veil``: messages, tables, tracebacks, a diverted log."""
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", _Veiled(stream, veil)) for stream in (out, err))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
