"""Not a way to define options: a command line that was not understood, with what was probably meant."""

import argparse
import difflib
import re
from collections.abc import Collection, Iterator
from typing import Final, NoReturn

_UNKNOWN: Final = "unrecognized arguments: "


class Parser(argparse.ArgumentParser):
    """Says for each unknown option which one comes near.

    Attributes:
        stray: said where nothing comes near.
    """

    stray: str = ""

    def error(self, message: str) -> NoReturn:
        super().error(self.explained(message))

    def explained(self, message: str) -> str:
        """A message of argparse with what was probably meant."""
        if not message.startswith(_UNKNOWN):
            return message
        known = set(options_of(self))
        words = message.removeprefix(_UNKNOWN).split()
        near = [found for word in words if word.startswith("-") and (found := _nearest(word, known))]
        hint = f"did you mean {' '.join(near)}?" if near else self.stray
        return f"{message}; {hint}" if hint else message


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The long options of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to ask
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from options_of(command)


def _nearest(word: str, known: Collection[str]) -> str:
    name = re.split("[= ]", word, maxsplit=1)[0]
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)), "")
