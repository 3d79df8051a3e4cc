"""Not the lifecycle: reads the command line of ``manage_pod.py`` and calls the command it names.

Exit codes: 0 done (also when another pass is at work), 1 failed, 2 usage, 69 and 75 provider or temporary trouble,
76 no money, 77 bad key, 78 bad configuration or state, 98 port taken, 130 interrupted.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from llmpod import __version__, config
from llmpod.cli import logfile, passes
from llmpod.cli.command import WHOLE_LINES, Invocation
from llmpod.cli.commands import NAMES, commands
from llmpod.cli.veiled import veiled
from llmpod.cli.wiring import DEFAULT_CONFIG
from llmpod.config.cmdline import Parser
from llmpod.errors import LlmpodError
from llmpod.nocore import leave_no_core
from llmpod.veil import Veil


class _Parser(Parser):
    """Says which command was probably meant."""

    def error(self, message: str) -> NoReturn:
        if found := re.search(r"invalid choice: '([^']*)'", message):
            near = difflib.get_close_matches(found[1], NAMES, n=1)
            message = f"unknown command {found[1]!r}" + (f"; did you mean {near[0]}?" if near else "")
        super().error(message)


def parser(names: Sequence[str] = NAMES) -> argparse.ArgumentParser:
    """The command line, with the commands of these names."""
    p = _Parser(
        prog="manage_pod.py",
        description="Keeps a private GPU model server running exactly while it is wanted.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _flags(p)
    p.add_argument("--version", action="version", version=f"llmpod {__version__}")
    words = p.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", parser_class=argparse.ArgumentParser
    )
    for command in commands(names):
        own = words.add_parser(command.name, help=command.summary, description=command.summary)
        _common(own, config_path=argparse.SUPPRESS, off=argparse.SUPPRESS)
        command.arguments(own)
    return p


def _flags(p: argparse.ArgumentParser) -> None:
    """What may stand before a command, or without one."""
    p.add_argument("--shutdown", action="store_true", help="terminate the pod(s), stop the proxy; sticky")
    p.add_argument(
        "--dry-run", action="store_true", help="print what a pass would do, with prices; change nothing"
    )
    p.add_argument(
        "--refresh-catalog", action="store_true", help="fetch GPU types, prices, stock; check the config"
    )
    _common(p, config_path=DEFAULT_CONFIG, off=False)


def _said(argv: Sequence[str]) -> Sequence[str]:
    """The commands that a command line can be about: all of them, for help and where something is misspelt."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=True, exit_on_error=False)
    _flags(first)
    first.add_argument("command", nargs="?")
    try:
        word = first.parse_known_args(argv)[0].command
    except argparse.ArgumentError:
        return NAMES
    if word is None and not {"-h", "--help"}.intersection(argv):
        return (passes.PASS.name,)
    return (word,) if word in NAMES else NAMES


def _common(p: argparse.ArgumentParser, *, config_path: Path | str, off: bool | str) -> None:
    """Options that may stand before or after the command; a default stands once, in front."""
    p.add_argument("--verbose", action="store_true", default=off, help="tell every step")
    p.add_argument(
        "--config", type=Path, default=config_path, metavar="FILE", help=f"default: {DEFAULT_CONFIG}"
    )
    p.add_argument(
        "--no-proxy", action="store_true", default=off, help="leave the proxy alone; somebody else runs it"
    )
    p.add_argument(
        "--log-file",
        type=Path,
        default=off or None,
        metavar="FILE",
        help="append all output to FILE, kept small",
    )


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command; errors become one readable line on stderr and an exit code."""
    argv = sys.argv[1:] if argv is None else argv
    environ = config.environment() if environ is None else environ
    leave_no_core()
    veil = Veil(environ.get(name) for name in config.SECRET_VARIABLES)
    with veiled(veil):
        options = parser(_said(argv)).parse_args(argv)
        if options.log_file:
            logfile.divert(options.log_file)
        width = None if sys.stdout.isatty() else WHOLE_LINES  # a file or a program has no columns
        return _run(Invocation(options, environ, Console(soft_wrap=True, width=width), veil))


def _run(call: Invocation) -> int:
    try:
        return _dispatch(call)
    except LlmpodError as e:
        Console(stderr=True, soft_wrap=True).print(f"manage_pod.py: {e}", highlight=False, markup=False)
        return e.exit_code
    except KeyboardInterrupt:
        Console(stderr=True).print(
            "interrupted; what was ordered stands (see `status`, `down`)", highlight=False
        )
        return 130


def _dispatch(call: Invocation) -> int:
    """The flags of old stand for commands of their own."""
    if call.options.refresh_catalog:
        from llmpod.cli.catalog import refresh

        return refresh(call)
    if call.options.dry_run:
        return passes.plan(call)
    if call.options.shutdown:
        return passes.shutdown(call)
    (chosen,) = commands([call.options.command or passes.PASS.name])
    return chosen.run(call)
