"""Not a library: the simulator as a program. One JSON line on stdout says where it listens, then it runs."""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Mapping

from llmpod.sim.api import Api
from llmpod.sim.behavior import BadBehavior, Behavior, merged
from llmpod.sim.hosts import ProxyHost
from llmpod.sim.serverless_host import InvokeHost
from llmpod.sim.wire import Server
from llmpod.sim.world import World

_WATCH = 0.2  # seconds between two looks at the parent


def main(argv: list[str]) -> int:
    """Run until SIGTERM, SIGINT or the end of the parent that was named; its pods end with it."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        changes = json.loads(options.behavior)
        if options.load_seconds is not None:
            changes["load_seconds"] = options.load_seconds
        behavior = merged(Behavior(), changes)
    except (BadBehavior, ValueError, TypeError, AttributeError) as error:
        parser.error(f"--behavior: {error}")
    given = options.key or os.environ.get("LLMPOD_SIM_KEY")
    key = given or f"rpa_{secrets.token_hex(20).upper()}"
    told = {} if given else {"key": key}  # whoever gave it knows it, and output ends up in logs
    asyncio.run(_run(options, World(key, behavior, inline=options.pods == "inline"), told))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llmpod.sim", allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="of the API; the proxy host takes any free one")
    parser.add_argument("--pods", choices=("process", "inline"), default="process")
    parser.add_argument("--key", help="the account's API key; or LLMPOD_SIM_KEY in the environment")
    parser.add_argument("--load-seconds", type=float, help="the same as in --behavior")
    parser.add_argument("--behavior", default="{}", help="JSON, see llmpod/sim/behavior.py")
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    return parser


async def _run(options: argparse.Namespace, world: World, told: Mapping[str, str]) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    api = await Server(Api(world).handle, cancels=False).start(options.host, options.port)
    proxy = await Server(ProxyHost(world).handle).start(options.host)
    invoke = await Server(InvokeHost(world).handle).start(options.host)
    world.invoke_url = f"http://{options.host}:{invoke.port}"
    base = f"http://{options.host}:{api.port}"
    ready = {
        "api_url": base,
        "proxy_url": f"http://{options.host}:{proxy.port}/{{id}}-{{port}}",
        "control_url": f"{base}/__sim",
        "pid": os.getpid(),
        **told,
    }
    print(json.dumps(ready), flush=True)
    watch = asyncio.create_task(_orphaned(options.parent_pid, over)) if options.parent_pid else None
    await over.wait()
    if watch:
        watch.cancel()
    await api.close()
    await proxy.close()
    await invoke.close()
    await world.close()


async def _orphaned(parent: int, over: asyncio.Event) -> None:
    """Sets `over` when the parent is gone; a child sees that it has a new one, even while the old one is a zombie."""
    child = os.getppid() == parent
    while _exists(parent) and not (child and os.getppid() != parent):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(_WATCH)
    over.set()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
