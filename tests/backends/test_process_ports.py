"""Where local commands are to listen: the address that they are given, and ports that are nobody else's."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmpod.backends.local_port import HOST
from llmpod.config.ways import addressed
from llmpod.errors import ProviderUnavailable
from tests.backends.local import STAY, Local, local
from tests.support import procfs
from tests.support.net import free_port


@pytest.fixture
def here(state_dir: Path) -> Iterator[Local]:
    with local(state_dir) as made:
        yield made


def test_the_address_is_added_or_filled_in(here: Local) -> None:
    assert addressed(("vllm", "serve"), "h", 7) == ("vllm", "serve", "--host", "h", "--port", "7")
    assert addressed(("x", "-p={port}", "{host}", "{a}"), "h", 7) == ("x", "-p=7", "h", "{a}")
    backend = here.python("import sys, signal; print(*sys.argv[1:], flush=True); signal.pause()")
    made = here.create(backend)
    port = str(made.base_url).rpartition(":")[2]
    here.said(backend, made.id, f"--host 127.0.0.1 --port {port}")


def test_a_port_in_use_is_passed_over_or_waited_for(here: Local) -> None:
    backend = here.python(STAY)
    first = here.create(backend)
    taken = socket.create_server((HOST, 0))
    with taken, pytest.raises(ProviderUnavailable, match="in use"):
        here.create(here.python(STAY, port=taken.getsockname()[1]))
    wanted = free_port()
    assert here.create(here.python(STAY, port=wanted)).base_url == f"http://{HOST}:{wanted}"
    assert first.base_url


def test_two_that_do_not_listen_yet_get_two_ports(here: Local) -> None:
    """Many servers load their model first: the second would find the first one's, or be found for it."""
    backend = here.python(STAY)
    first, second = here.create(backend), here.create(backend)
    assert first.base_url != second.base_url


def test_two_that_listen_get_two_ports(here: Local) -> None:
    code = (
        "import sys, socket, signal; s = socket.create_server((sys.argv[2], int(sys.argv[4])));"
        "print('listens', flush=True); signal.pause()"
    )
    backend = here.python(code)
    first = here.create(backend)
    here.said(backend, first.id, "listens")
    second = here.create(backend)
    here.said(backend, second.id, "listens")
    assert first.base_url != second.base_url


@pytest.mark.skipif(not procfs.available(), reason="who was promised what stands in /proc")
def test_installations_that_start_servers_at_once_get_a_port_for_each(tmp_path: Path) -> None:
    """As units do when a machine has booted."""
    count = 6

    def made(number: int) -> str:
        (tmp_path / str(number)).mkdir()
        here = stack.enter_context(local(tmp_path / str(number)))
        backend = here.python(STAY)
        ready.wait()
        return str(here.create(backend).base_url)

    ready = threading.Barrier(count)
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        assert len(set(pool.map(made, range(count)))) == count


@pytest.mark.skipif(not procfs.available(), reason="who was promised what stands in /proc")
def test_a_port_that_a_loading_server_was_promised_is_nobody_elses(here: Local, tmp_path: Path) -> None:
    """Nor that of another model or installation: a server may listen long after it was started."""
    first = here.create(here.python(STAY))
    (tmp_path / "other").mkdir()
    with local(tmp_path / "other") as other:
        second = other.create(other.python(STAY))
        assert first.base_url != second.base_url
        port = int(str(first.base_url).rpartition(":")[2])
        with pytest.raises(ProviderUnavailable, match="in use"):
            other.create(other.python(STAY, port=port))
