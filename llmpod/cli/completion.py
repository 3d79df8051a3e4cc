"""Not a shell: ``completion`` prints a script that makes bash, zsh or fish complete our commands and options.

Own, since it must cover fish, which shtab does not, and because people type ``python3 manage_pod.py``, where the
completion of ``python3`` has to be asked to step aside for this one script.
"""

import argparse

from llmpod.cli.command import Command, Invocation
from llmpod.cli.levels import levels
from llmpod.cli.shells import SCRIPTS


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "bash:  python3 manage_pod.py completion bash >> ~/.bashrc\n"
        "zsh:   python3 manage_pod.py completion zsh >> ~/.zshrc     (after compinit)\n"
        "fish:  python3 manage_pod.py completion fish > ~/.config/fish/conf.d/llmpod.fish\n\n"
        "Completes `./manage_pod.py …`, `python3 manage_pod.py …` and `llmpod …`, from any directory.\n"
        "Print it again after an update."
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="for which shell")


def completion(call: Invocation) -> int:
    """Print the script."""
    from llmpod.cli.main import parser

    print(SCRIPTS[call.options.shell](tuple(levels(parser()))), end="")
    return 0


COMMAND = Command(
    "completion", "a script that makes your shell complete these commands", completion, _arguments
)
