"""Nobody ever gets a byte of somebody else's answer (G16), whatever leaves, dies, repeats or overtakes.

The size of the long run is ``CROSSTALK_REQUESTS`` (1,000,000); a sample of it runs with every suite.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from tests.proxy.crosstalk import Clients, Server, Tally
from tests.proxy.front import proxy, settings

SAMPLE = 3_000
WHOLE = int(os.environ.get("CROSSTALK_REQUESTS", "1000000"))


def interleaved(total: int, cache_dir: Path, env: dict[str, str], *, seed: int = 1) -> Tally:
    """Runs so many requests; checks what must hold for any number of them."""

    async def run() -> tuple[Tally, int]:
        server = Server(seed)
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        environ = env | settings(cache_dir, f"http://127.0.0.1:{port}", MAX_CACHE_SIZE="500")
        with proxy(environ) as front:
            clients = Clients(front.port, total, seed)
            began = time.monotonic()
            await clients.run()
            sys.stderr.write(f"{total / (time.monotonic() - began):.0f} requests/s, {clients.tally}\n")
            listener.close()
            return clients.tally, server.calls

    tally, calls = asyncio.run(run())
    assert tally.wrong == []
    assert tally.whole > 0.6 * total
    assert min(tally.failed, tally.left, tally.hits) > 0.01 * total
    assert tally.joins > 0
    assert calls < total
    return tally


def test_a_sample_of_interleaved_requests(cache_dir: Path, env: dict[str, str]) -> None:
    interleaved(SAMPLE, cache_dir, env)


@pytest.mark.long
def test_a_million_interleaved_requests(cache_dir: Path, env: dict[str, str]) -> None:
    interleaved(WHOLE, cache_dir, env, seed=2)
