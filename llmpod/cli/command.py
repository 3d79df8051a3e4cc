"""Not a parser: what one command of ``manage_pod.py`` is, and what it gets to work with."""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from llmpod import config
from llmpod.cli.wiring import Plane, open_plane
from llmpod.config import Config
from llmpod.errors import ConfigError, StateError
from llmpod.lifecycle.store import Store
from llmpod.secret import Secret
from llmpod.veil import Veil

OFFLINE = Secret("offline", "nowhere")
WHOLE_LINES = 10_000
"""Columns for a table of which nothing may be cut; a terminal breaks its lines."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of the program.

    Args:
        options: the parsed command line; ``config``, ``verbose`` and ``no_proxy`` are always there.
        environ: the environment.
        console: where people read the outcome; errors are raised instead.
        veil: knows what must not be shown.
    """

    options: argparse.Namespace
    environ: Mapping[str, str]
    console: Console
    veil: Veil

    @property
    def config_path(self) -> Path:
        path: Path = self.options.config
        return path

    @property
    def verbose(self) -> bool:
        return bool(self.options.verbose)

    def say(self, text: str) -> None:
        """One line, printed as it is."""
        self.console.print(text, highlight=False, markup=False)

    def config(self, *, salvage: bool = False) -> Config:
        """The configuration; with ``salvage``, of a wrong one what is needed to end pods.

        Raises:
            ConfigError: it is wrong.
        """
        try:
            return self._learned(config.load(self.config_path, self.environ))
        except ConfigError as e:
            if not salvage:
                raise
            self.say(f"{e}\nGoing on with what can be read of it.")
            with suppress(ConfigError, StateError):
                if (last := self._last_config()) is not None and not last.common.is_rented:
                    return last  # what runs is found by its section, of which little may be left
            return self._learned(config.salvage(self.config_path, self.environ))

    def _learned(self, loaded: Config) -> Config:
        """The same; what is secret in it is not shown from now on."""
        self.veil.learn(loaded.common.hf_token, *(target.url for target in loaded.common.notifications))
        return loaded

    def key(self, loaded: Config) -> Secret:
        """The key of the configuration's providers. Raises BadCredentials."""
        key = config.provider_key(loaded.backends, self.environ)
        self.veil.learn(key)
        return key

    def config_or_last(self) -> tuple[Config, ConfigError | None]:
        """The configuration; where it is wrong, that of the last pass and what is wrong.

        Raises:
            ConfigError: it is wrong, and there was no pass before.
        """
        try:
            return self.config(), None
        except ConfigError as e:
            if (last := self._last_config()) is None:
                raise
            return last, e

    def _last_config(self) -> Config | None:
        """The configuration of the last pass; None when there was none."""
        store = Store(config.salvage(self.config_path, self.environ).state_file)
        raw = store.kept_config()
        if not raw:
            return None
        return self._learned(config.parse(raw, path=self.config_path.absolute(), environ=self.environ))

    @contextmanager
    def plane(
        self, *, offline: bool = False, salvage: bool = False, loaded: Config | None = None
    ) -> Iterator[Plane]:
        """The control plane, open for use.

        Args:
            offline: needs no key and must not call the provider.
            salvage: see :meth:`config`.
            loaded: the configuration, when it was read already.

        Raises:
            ConfigError, BadCredentials, StateError: it cannot be opened.
        """
        loaded = loaded or self.config(salvage=salvage)
        key = OFFLINE if offline else self.key(loaded)
        with open_plane(
            loaded, key, environ=self.environ, with_proxy=not self.options.no_proxy, veil=self.veil
        ) as plane:
            yield plane


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Most commands have none of their own."""


@dataclass(frozen=True, slots=True)
class Command:
    """A word that people type after ``manage_pod.py``.

    Args:
        name: the word.
        summary: one line for the help.
        run: does it and returns the exit code; failures are raised as LlmpodError.
        arguments: adds its own options to its parser.
    """

    name: str
    summary: str
    run: Callable[[Invocation], int]
    arguments: Callable[[argparse.ArgumentParser], None] = _no_arguments


def json_flag(parser: argparse.ArgumentParser) -> None:
    """``--json``, as several commands have it."""
    parser.add_argument("--json", action="store_true", help="machine-readable")


def port(text: str) -> int:
    """An argument type: a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 1 and 65535")
    return int(text)
