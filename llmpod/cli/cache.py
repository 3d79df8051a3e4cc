"""Not the proxy: the command ``cache``, which looks into the stored answers and changes them, with or without it."""

import argparse
from collections.abc import Callable
from pathlib import Path

from llmpod.cli import cache_change, cache_show, cache_why
from llmpod.cli.cache_place import count, key_prefix, seconds
from llmpod.cli.command import Command, Invocation, json_flag

Arguments = Callable[[argparse.ArgumentParser], None]


def _ls(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("--model", metavar="NAME", help="only answers of this model")
    parser.add_argument("--path", metavar="PATH", help="only of this path, as /v1/embeddings")
    parser.add_argument(
        "--limit", type=count, default=50, metavar="N", help="the last N used (default 50; 0: all)"
    )


def _show(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("key", type=key_prefix, metavar="KEY", help="a key or its beginning, see `cache ls`")
    parser.add_argument("--body", action="store_true", help="the stored bytes alone, as the server sent them")


def _why(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument(
        "request",
        metavar="REQUEST",
        help="a file with the body (JSON), - for standard input, or the body itself",
    )
    parser.add_argument(
        "--path",
        default="/v1/chat/completions",
        metavar="PATH",
        help="where it is sent (default: %(default)s)",
    )
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="a proxy's RUNPOD_ENDPOINT; its other settings come from the environment",
    )
    parser.add_argument(
        "--caller-key-env",
        metavar="NAME",
        help="the variable that holds the API key that the client sends",
    )


def _purge(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("key", type=key_prefix, nargs="*", metavar="KEY", help="keys or their beginnings")
    parser.add_argument("--all", action="store_true", dest="everything", help="everything")
    parser.add_argument("--model", metavar="NAME", help="answers of this model")
    parser.add_argument("--path", metavar="PATH", help="answers of this path")
    parser.add_argument(
        "--older-than", type=seconds, metavar="TIME", help="stored longer ago: 90, 10m, 2h, 7d"
    )
    parser.add_argument("--dry-run", action="store_true", dest="preview", help="only say how many")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="a new file, for you alone (default: standard output)",
    )


def _import(parser: argparse.ArgumentParser) -> None:
    json_flag(parser)
    parser.add_argument("file", metavar="FILE", help="an export; - for standard input")


_ACTIONS: dict[str, tuple[str, Callable[[Invocation], int], Arguments]] = {
    "ls": ("the stored answers, last used first", cache_show.ls, _ls),
    "show": ("one stored answer and its question", cache_show.show, _show),
    "why": ("whether a request would be a hit, and what keeps it from being one", cache_why.why, _why),
    "purge": (
        "forget answers for good; a running proxy forgets them too",
        cache_change.purge_entries,
        _purge,
    ),
    "export": ("all answers as lines of JSON", cache_change.export, _export),
    "import": ("add the answers of an export (not while a proxy runs)", cache_change.import_file, _import),
    "verify": ("check every record on disk", cache_show.verify, json_flag),
    "stats": ("how full it is, and by which rules it works", cache_show.stats, json_flag),
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (summary, _, arguments) in _ACTIONS.items():
        own = words.add_parser(name, help=summary, description=summary)
        own.add_argument(
            "--dir", type=Path, metavar="DIR", help="a cache directory (default: `cache_dir` of the config)"
        )
        own.add_argument(
            "--config", type=Path, default=argparse.SUPPRESS, metavar="FILE", help="the configuration"
        )
        arguments(own)


def run(call: Invocation) -> int:
    """``cache ACTION``."""
    return _ACTIONS[call.options.action][1](call)


COMMAND = Command(
    "cache", "the stored answers: ls, show, why, purge, export, import, verify, stats", run, _arguments
)
