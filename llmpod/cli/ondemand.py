"""Not a second way to start models: ``proxy_fastapi.py … -- COMMAND…`` as an installation of its own.

The words become a configuration with ``start: "on_request"`` in a private directory beside the program, one for each
port; the proxy and the manager do the rest as ever. At the end the model is ordered down and seen gone. What a killed
run left behind is ended by the next one on that port.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from llmpod import config as configuration
from llmpod.backends import local_port
from llmpod.cli import room as rooms
from llmpod.cli.command import port
from llmpod.cli.endings import Endings, Teller
from llmpod.cli.heir import ROOM, heir
from llmpod.cli.proxyenv import on_demand_environ
from llmpod.config import (
    KEYS_FILE,
    CallerKey,
    Config,
    ProxySettings,
    Scope,
    digest_of,
    proxy_settings,
    written,
)
from llmpod.config.cmdline import Parser
from llmpod.config.demand import MOST_IDLE_SECONDS
from llmpod.config.names import names_of_command
from llmpod.config.server_args import option, served
from llmpod.config.typed_key import without_key
from llmpod.errors import LlmpodError
from llmpod.lifecycle import files, ports

DEFAULT_PORT: Final = 8100
DEFAULT_SRUN: Final = "srun --mem=30G --gres=gpu:1"
USAGE: Final = 2  # as for every wrong command line
_SLURM_ONLY: Final = ("srun_cmd", "loopback_user", "loopback_host")
# options of model servers that say what they serve: vLLM, SGLang, llama.cpp, transformers
_NAMES: Final = ("--served-model-name", "--alias", "--model", "--model-path", "--hf-repo", "-hf", "-m")
# all of the environment but the cloud's keys, our own settings, and names that no shell would take
_SHARED: Final = re.compile(r"(?!RUNPOD_|LLMPOD_)[A-Za-z_][A-Za-z0-9_]*")
_MODEL: Final = re.compile(r"[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?")
_TAKEN_OUT: Final = (
    "COMMAND's --api-key is what callers must send here;"
    " the server itself gets a key of its own, in its environment."
)
Serve = Callable[[Callable[[], ProxySettings], Callable[[], None]], int]


def run(argv: Sequence[str], *, home: Path, serve: Serve) -> int:
    """From the command line to the exit code, when nothing is left behind.

    Args:
        argv: the words after the program's name; one of them is ``--``.
        home: the program's directory.
        serve: runs the proxy until it is told to stop, by the settings that it is given a way to read; it says when.
    """
    at = list(argv).index("--")
    options = _parser().parse_args(argv[:at])
    command, typed = without_key(argv[at + 1 :])
    if not command:
        _parser().error("what is to be started? Write the command after `--`.")
    if wrong := _contradiction(options):
        _parser().error(wrong)
    options.api_key = [options.api_key] if options.api_key else list(typed)
    environ, console = configuration.environment(), Console(stderr=True, soft_wrap=True)
    if missing := _missing(options, command, environ):
        sys.stderr.write(f"{missing}\n")
        return USAGE
    try:
        with rooms.room(home, options.port, console) as room:
            if room.exists():
                rooms.end_leftovers(room, environ, console)
            _look_at_target(options)
            config = _furnished(room, options, command, environ)
            names, say = names_of_command(command), _Course(console)
            if typed:
                console.print(_TAKEN_OUT, highlight=False)

            def read() -> ProxySettings:
                return _settings(config, options, environ, names)

            with heir(ROOM, rooms.lock_of(room), config.path, environ=environ):
                return _serve(lambda: serve(read, say.stopping), config, environ, say=say)
    except LlmpodError as e:
        sys.stderr.write(f"{e}\n")
        return e.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="proxy_fastapi.py",
        usage="proxy_fastapi.py [options] -- COMMAND…",
        description="Start COMMAND with the first /v1 request, stop it when it is idle, start it again when needed."
        " COMMAND gets --host and --port, or {host} and {port} are filled in.",
    )
    parser.stray = "COMMAND and all of its own options stand after `--`"
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--port", type=_port_or_any, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}")
    parser.add_argument(
        "--target-port", type=port, help="COMMAND's port (default: a free one from 8101 upwards)"
    )
    parser.add_argument("--idle-timeout", type=_seconds, default=1800, metavar="SECONDS", help="default 1800")
    parser.add_argument(
        "--ping-path", type=_path, default="/ping", help="answers 200 when COMMAND is ready (default /ping)"
    )
    parser.add_argument("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    parser.add_argument(
        "--api-key", metavar="KEY", help="what callers must send as `Authorization: Bearer …`"
    )
    parser.add_argument("--use-slurm", action="store_true", help="run COMMAND as a SLURM job")
    parser.add_argument("--srun-cmd", help=f'its options, as for srun (default "{DEFAULT_SRUN}")')
    parser.add_argument("--loopback-user", help="account on this machine for the job's SSH tunnel")
    parser.add_argument("--loopback-host", help="this machine, as the job's node reaches it")
    return parser


def _port_or_any(text: str) -> int:
    return 0 if text == "0" else port(text)


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_IDLE_SECONDS:
        most = f"{MOST_IDLE_SECONDS} (31 days)"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of whole seconds between 1 and {most}")
    return int(text)


def _path(text: str) -> str:
    if not re.fullmatch(r"/[\x21-\x7e]{0,199}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a path that begins with /, such as /health")
    return text


def _contradiction(options: argparse.Namespace) -> str:
    """What options lack to mean anything; an option that is silently ignored would start the wrong thing."""
    if options.use_slurm:
        ready = options.loopback_user and options.loopback_host
        return (
            ""
            if ready
            else "--use-slurm needs --loopback-user and --loopback-host, for the tunnel back to here."
        )
    if options.port and options.target_port == options.port:
        return f"--port and --target-port are the same ({options.port}); COMMAND needs a port of its own."
    named = [f"--{name.replace('_', '-')}" for name in _SLURM_ONLY if getattr(options, name) is not None]
    return (
        f"{' and '.join(named)} mean{'s' * (len(named) == 1)} nothing without --use-slurm; COMMAND would run here."
        if named
        else ""
    )


def _missing(options: argparse.Namespace, command: Sequence[str], environ: Mapping[str, str]) -> str:
    """What to say of a program that is not there, so that nobody waits for a start to learn it; else nothing."""
    program = "sbatch" if options.use_slurm else command[0]  # the job's own is the node's business
    if shutil.which(program, path=environ.get("PATH")):
        return ""
    if "/" in program:
        there = Path(program).exists()
        return f"{program} {'is no program that you may execute' if there else 'does not exist'}. Nothing was started."
    if options.use_slurm:
        return "There is no `sbatch` in your PATH: is this a login node of the cluster? Nothing was started."
    return (
        f"There is no program {program!r} in your PATH. Nothing was started. Activate the environment in which it is"
        f" installed, or write its whole path, such as /home/me/venv/bin/{program}."
    )


def _look_at_target(options: argparse.Namespace) -> None:
    """Raises PortTaken: where COMMAND is told to listen, somebody does. Of a job's node nothing is known here."""
    wanted = options.target_port
    if wanted and not options.use_slurm and not local_port.is_free(wanted):
        raise ports.taken(wanted, instead="leave `--target-port` out: a free port is found")


class _Course:
    """What a run says once it was told to end."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._say = Teller(console)
        self._told = False

    def stopping(self) -> None:
        self._told = True
        self._say("\nstopping: answers under way get a few seconds; Ctrl-C again cuts them")

    def ending(self, endings: Endings) -> None:
        endings.arm()
        if self._told:
            self._say("ending the model server, if one runs; Ctrl-C again does not wait for it")

    def ended(self, *, gone: bool) -> None:
        if self._told and gone:
            self._say("nothing is left running")


def _serve(serve: Callable[[], int], config: Config, environ: Mapping[str, str], *, say: _Course) -> int:
    """Serve until told to stop, and leave nothing behind."""
    try:
        return serve()
    finally:
        endings = Endings()
        endings.disarm()  # until the model's end is ordered nothing interrupts
        say.ended(gone=rooms.end(config, environ, say.console, armed=lambda: say.ending(endings)))


def _furnished(
    room: Path, options: argparse.Namespace, command: list[str], environ: Mapping[str, str]
) -> Config:
    """The room with its configuration."""
    files.private_dir(room)
    path = room / "pod_config.json"
    files.write_atomic(path, json.dumps(_document(options, command, environ)))
    return configuration.load(path, environ)


def _document(
    options: argparse.Namespace, command: Sequence[str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """The configuration that the words stand for. The command gets environment and directory of whoever typed them."""
    shared = {name: text for name, text in environ.items() if _SHARED.fullmatch(name)}
    place = {"cwd": str(Path.cwd()), "env": shared}  # on a node, too, as srun has it
    own = {"command": command, "ping_path": options.ping_path, "port": options.target_port, **place}
    if options.use_slurm:
        tunnel = {"loopback_user": options.loopback_user, "loopback_host": options.loopback_host}
        section = {"slurm": {**own, **tunnel, "srun": options.srun_cmd or DEFAULT_SRUN}}
    else:
        section = {"process": own}
    return {
        "model": model_of(command),
        "served_model_name": "*",
        "backend": next(iter(section)),
        **section,
        "start": "on_request",
        "idle_seconds": options.idle_timeout,
        "max_restarts": 1,  # its port may have been taken by somebody else between our look and its start
        "restart_backoff_seconds": 0,
    }


def _settings(
    config: Config, options: argparse.Namespace, environ: Mapping[str, str], names: Sequence[str]
) -> ProxySettings:
    """The proxy's: what the environment says as ever, but for where the model is and to which ``names`` it answers.

    Raises:
        ConfigError: a variable is wrong.
    """
    values = {name: text for name, text in environ.items() if name != "RUNPOD_ENDPOINT"}
    values |= on_demand_environ(config)
    if names:
        known = (*names, *values["LLMPOD_MODELS"].split(","))
        values |= {"LLMPOD_MODELS": ",".join(dict.fromkeys(known)), "LLMPOD_OPEN_NAMES": ""}
    if options.api_key:
        keys = config.directory / KEYS_FILE
        files.private_dir(keys.parent)
        files.write_atomic(keys, written([_caller(n, key) for n, key in enumerate(options.api_key, 1)]))
        values |= {"LLMPOD_AUTH": "keys", "LLMPOD_KEYS_FILE": str(keys)}
    words = ["--port", str(options.port), "--log-level", options.log_level]
    return proxy_settings([*words, *(("--host", options.host) if options.host else ())], values)


def _caller(number: int, key: str) -> CallerKey:
    return CallerKey(str(number), f"api-key-{number}", digest_of(key), tuple(Scope), created=time.time())


def model_of(command: Sequence[str]) -> str:
    """The model that a command serves, by its options or its ``serve MODEL``; else the program's own name."""
    given = next(filter(None, (option(command, name) for name in _NAMES)), None)
    return _as_id(given or served(command) or Path(command[0]).name)


def _as_id(text: str) -> str:
    if _MODEL.fullmatch(text):
        return text
    return re.sub(r"[^\w.\-]", "-", Path(text).stem).lstrip("-._") or "model"
