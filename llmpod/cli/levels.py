"""Not a parser: the command line as data, for who must say what can be typed where."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TOP = "top"


class Offered(tuple[str, ...]):
    """Choices that are completed, beside which others may be typed: those that only the configuration knows."""

    __slots__ = ()

    def __contains__(self, typed: object) -> bool:
        return isinstance(typed, str)


@dataclass(frozen=True, slots=True)
class Flag:
    """One option: its spellings, what it is for, and what may follow it."""

    words: tuple[str, ...]
    help: str
    takes_value: bool = False
    takes_file: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Level:
    """What can be typed after a row of commands.

    Args:
        place: that row, beginning with ``top``.
        flags: the options.
        words: commands and other fixed words, with what they are for.
        commands: those of the words that lead to another level.
    """

    place: str
    flags: tuple[Flag, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()


def levels(parser: argparse.ArgumentParser, place: str = TOP) -> Iterator[Level]:
    """The command line as data, from the parser itself: nothing is written down twice.

    Args:
        parser: the parser of this place and, through its commands, of all below.
        place: where it stands.
    """
    flags, words, below = list[Flag](), dict[str, str](), dict[str, argparse.ArgumentParser]()
    for action in parser._actions:  # noqa: SLF001 - argparse shows them in no public way
        if action.help == argparse.SUPPRESS:
            continue
        if action.option_strings:
            flags.append(_flag(action))
        elif isinstance(action.choices, dict):
            below |= action.choices
            words |= {name: sub.description or "" for name, sub in action.choices.items()}
        else:
            words |= {str(choice): "" for choice in action.choices or ()}
    yield Level(place, tuple(flags), words, tuple(below))
    for name, sub in below.items():
        yield from levels(sub, f"{place} {name}")


def _flag(action: argparse.Action) -> Flag:
    return Flag(
        tuple(action.option_strings),
        (action.help or "").replace("%%", "%"),
        takes_value=action.nargs != 0,
        takes_file=action.type is Path,
        choices=tuple(map(str, action.choices or ())),
    )
