"""Not the demo: where its files are, and which demos run beside a configuration, so that other commands can tell.

A demo has an installation of its own, in a directory that goes with it; nothing of it is in ours.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from llmpod.errors import LlmpodError, StateError
from llmpod.identity import process_id
from llmpod.lifecycle.files import private_dir, read_json
from llmpod.lifecycle.proxyproc import ProxyProcess
from llmpod.lifecycle.state import decode
from llmpod.lifecycle.store import Store

STATE_FILE: Final = "pod_state.json"
CACHE: Final = "cache"
_MARK: Final = "demo-"


@dataclass(frozen=True, slots=True)
class Demo:
    """One that runs now.

    Args:
        pid: of the program in somebody's terminal, which Ctrl-C ends.
        port: of its proxy.
        model: what it serves.
        home: the directory of its files.
    """

    pid: int
    port: int
    model: str
    home: Path

    @property
    def base_url(self) -> str:
        """For a client."""
        return f"http://localhost:{self.port}/v1"

    def __str__(self) -> str:
        return f"runs at {self.base_url} with the model {self.model} (pid {self.pid}; Ctrl-C ends it)"


def make_home(config_path: Path, pid: int) -> Path:
    """The directory of a new demo; what killed ones left, whose simulator is gone, is removed. Raises StateError."""
    above = _above(config_path)
    for home, of in _homes(above):
        if process_id(of) is None:
            shutil.rmtree(home, ignore_errors=True)
    return private_dir(above / f"{_MARK}{pid}")


def remove_home(home: Path) -> None:
    """At its end; the real thing's files may lie beside it and stay."""
    shutil.rmtree(home, ignore_errors=True)
    with suppress(OSError):
        home.parent.rmdir()


def inherit(home: Path, proxy_script: Path) -> None:
    """End the proxy of a demo that was killed, and remove its directory. The simulator ends by itself."""
    store = Store(home / STATE_FILE)
    with suppress(LlmpodError):
        record = store.load().proxy
        ProxyProcess(store, proxy_script, {"PORT": str(record.port if record else 0)}).end(record)
    remove_home(home)


def running(config_path: Path) -> list[Demo]:
    """Those whose proxy runs now; a file that cannot be read is none."""
    return [demo for home, pid in _homes(_above(config_path)) if (demo := _look(home, pid)) is not None]


def _above(config_path: Path) -> Path:
    return config_path.absolute().parent / ".llmpod"


def _homes(above: Path) -> Iterator[tuple[Path, int]]:
    for home in sorted(above.glob(f"{_MARK}[0-9]*")):
        if (digits := home.name.removeprefix(_MARK)).isdecimal():
            yield home, int(digits)


def _look(home: Path, pid: int) -> Demo | None:
    """Its own state says where it listens; read without a store, which would make the directory anew."""
    try:
        state = decode(read_json(home / STATE_FILE) or {})
    except (ValueError, StateError):
        return None
    proxy = state.proxy
    if proxy is None or process_id(pid) is None or process_id(proxy.process.pid) != proxy.process:
        return None
    names = [record.served_name or record.model for record in state.records.values()]
    return Demo(pid, proxy.port, ", ".join(names), home)
