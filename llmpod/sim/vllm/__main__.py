"""The program: `python -m llmpod.sim.vllm --port 0 --model M`. Not what it serves, which is app.py.

Like the real one it opens its port only when the model is loaded; then it prints one line of JSON with its URL.
It ends on SIGTERM and SIGINT, exit code 0, and when the process named by --parent-pid is gone.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from llmpod.sim.vllm.options import VllmOptions

_LOOK_AT_PARENT = 0.2  # seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one fake server to its end; 0, argparse's 2, or 1 where this Python has not the libraries."""
    parser = _arguments()
    args = parser.parse_args(argv)
    if importlib.util.find_spec("uvicorn") is None:
        home = Path(__file__).resolve().parents[3]
        parser.exit(
            1,
            f"{parser.prog}: this Python ({sys.executable}) lacks uvicorn. Run `make install` in {home},"
            f" then: {home}/.venv/bin/{parser.prog}\n",
        )
    options = VllmOptions(
        model=args.model,
        served_name=args.served_model_name,
        api_key=args.api_key or os.environ.get("VLLM_API_KEY") or None,
        ignore_key=args.ignore_key,
        max_model_len=args.max_model_len,
        max_num_seqs=args.max_num_seqs,
        load_seconds=args.load_seconds,
        first_token_seconds=args.first_token_seconds,
        tokens_per_second=args.tokens_per_second,
        auto_tools=args.enable_auto_tool_choice,
    )
    asyncio.run(_serve(options, (args.host, args.port), args.parent_pid))
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m llmpod.sim.vllm", description="A fake vLLM server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", default="")
    parser.add_argument("--api-key", help="default: the environment variable VLLM_API_KEY")
    parser.add_argument("--ignore-key", action="store_true", help="answer everybody")
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--max-model-len", type=int, default=8192, help="tokens")
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--load-seconds", type=float, default=0.0)
    parser.add_argument("--first-token-seconds", type=float, default=0.0)
    parser.add_argument("--tokens-per-second", type=float, default=0.0, help="0: no limit")
    parser.add_argument("--parent-pid", type=int, help="end when this process is gone")
    return parser


async def _serve(options: VllmOptions, address: tuple[str, int], parent: int | None) -> None:
    from llmpod.sim.vllm.server import serve  # where its libraries are missing, that was said by now

    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    watching = asyncio.ensure_future(_set_when_gone(parent, over)) if parent else None
    await serve(options, address, over=over, on_ready=_tell)
    if watching:
        watching.cancel()


def _tell(url: str) -> None:
    print(json.dumps({"url": url}), flush=True)


async def _set_when_gone(parent: int, over: asyncio.Event) -> None:
    child = os.getppid() == parent  # then a change of parent tells, even while the dead one is a zombie
    while _alive(parent) and (not child or os.getppid() == parent):  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_LOOK_AT_PARENT)
    over.set()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
