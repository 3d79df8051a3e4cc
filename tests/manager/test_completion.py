"""`completion`, by really asking the shells."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmpod.cli.commands import NAMES
from llmpod.cli.levels import levels
from llmpod.cli.main import parser
from llmpod.cli.shells import SCRIPTS
from tests.support.forks import Forks
from tests.support.process import PYTHON, run
from tests.support.screen import terminal
from tests.support.source import ROOT

ALL = list(NAMES)
SOURCES = ["container", "system", "all"]
LINES: Sequence[tuple[str, list[str] | None]] = (
    ("./manage_pod.py stat", ["status"]),
    ("manage_pod.py ", ALL),
    ("llmpod connect c", ["continue", "cline", "codegpt", "curl"]),
    ("/some/where/manage_pod.py logs --sou", ["--source"]),
    ("manage_pod.py logs --source ", SOURCES),
    ("manage_pod.py logs --source=sy", ["system"]),
    ("manage_pod.py logs --source all pr", ["proxy"]),
    ("manage_pod.py logs --tail ", []),
    ("manage_pod.py --shut", ["--shutdown"]),
    ("manage_pod.py logs --shut", []),
    ("manage_pod.py --config logs sta", ["status"]),
    ("manage_pod.py --config my-co", ["my-config.json"]),
    ("python3 manage_pod.py stat", ["status"]),
    ("python3 ../x/manage_pod.py logs --source c", ["container"]),
    ("python3 my-co", None),
)


MANAGER = [PYTHON, str(ROOT / "manage_pod.py"), "completion"]


@pytest.fixture
def here(tmp_path: Path, env: dict[str, str], forks: Forks) -> Callable[[str], Path]:
    """A folder with one file to complete and the script of a shell."""

    def made(shell: str) -> Path:
        (tmp_path / "my-config.json").write_text("{}")
        (tmp_path / "script").write_text(forks.run([*MANAGER, shell], env=env).expect().out)
        return tmp_path

    return made


_BASH_ASK = """
source ./script
function before { COMPREPLY=(asked-before); }
ask() {
    COMP_LINE=$1 COMP_POINT=${#1}
    COMP_WORDS=(${1//=/ = })
    [[ $1 == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    local spec=$(complete -p "${COMP_WORDS[0]##*/}")
    local name=${spec##*-F }
    COMPREPLY=()
    "${name%% *}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    printf '%s\\n' "${COMPREPLY[@]}"
}
"""


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_bash(
    here: Callable[[str], Path], env: dict[str, str], line: str, expected: list[str] | None
) -> None:
    """With bash's own `compgen`; words are split at `=` as its readline does."""
    program = f"{_BASH_ASK}\nask '{line}'\n"
    told = run(["bash", "--norc", "-c", program], env=env, cwd=here("bash")).expect()
    assert sorted(told.out.split()) == sorted(expected or [])


def test_bash_asks_who_completed_python_before_however_often_it_is_read(
    here: Callable[[str], Path], env: dict[str, str]
) -> None:
    before = "old() { COMPREPLY=(from-old); }; complete -F old python3\n"
    program = f"{before}{_BASH_ASK}source ./script\nask 'python3 fro'; ask 'python3 manage_pod.py stat'\n"
    told = run(["bash", "--norc", "-c", program], env=env, cwd=here("bash")).expect()
    assert told.out.split() == ["from-old", "status"]


@pytest.mark.parametrize("command", ["./manage_pod.py", "python3 manage_pod.py"])
def test_bash_at_a_terminal(here: Callable[[str], Path], env: dict[str, str], command: str) -> None:
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with terminal(shell, {**env, "PS1": "ready> ", "TERM": "dumb"}, cwd=here("bash")) as screen:
        screen.until("ready> ")
        screen.type("source ./script; echo so''urced\n")
        screen.until("sourced\r\n")
        screen.type(f"{command} stat\t--js\t")
        screen.until("status --json ")
        screen.type("\x15python3 my-\t")
        screen.until("my-config.json")


@pytest.mark.component
@pytest.mark.skipif(shutil.which("fish") is None, reason="there is no fish")
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish(
    here: Callable[[str], Path], env: dict[str, str], line: str, expected: list[str] | None
) -> None:
    ask = ["fish", "--no-config", "-c", "source ./script; complete -C $argv[1]", line]
    told = run(ask, env=env, cwd=here("fish")).expect()
    begun = "" if line.endswith(" ") else line.rsplit(maxsplit=1)[-1]
    found = [row.split("\t")[0] for row in told.out.splitlines()]
    found = [word for word in found if word.startswith(begun)]  # fish also offers what only resembles it
    if not begun:  # and options together with words
        found = [word for word in found if not word.startswith("-")]
    words = ["my-config.json"] if expected is None else expected
    assert sorted(found) == sorted(begun.rpartition("=")[0] + "=" * ("=" in begun) + word for word in words)


@pytest.mark.component
@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("./manage_pod.py stat\t--js\t", "status --json"),
        ("python3 manage_pod.py logs --sou\tsys\t", "logs --source system"),
        ("manage_pod.py logs --source=sys\t", "--source=system"),
        ("manage_pod.py --config my-\tstat\t", "my-config.json status"),
        ("llmpod connect kil\t", "connect kilo"),
    ],
)
def test_zsh_at_a_terminal(here: Callable[[str], Path], env: dict[str, str], typed: str, shown: str) -> None:
    with terminal(["zsh", "-f", "-i"], {**env, "PS1": "ready> ", "TERM": "dumb"}, cwd=here("zsh")) as screen:
        screen.until("ready> ")
        screen.type("[[ -n $LLMPOD_ZMOD ]] && module_path=($LLMPOD_ZMOD)\n")
        screen.type("autoload -U compinit && compinit -u -D && source ./script && echo so''urced\n")
        screen.until("sourced\r\n")
        screen.type(typed)
        screen.until(shown.rsplit(maxsplit=1)[-1].rpartition("=")[2])
        assert shown in re.sub(r"[^\x08]\x08", "", screen.shown)  # zsh takes back the space that it put there


def test_every_command_and_option_is_there_and_no_words_break_the_scripts() -> None:
    places = list(levels(parser()))
    assert [place.place for place in places[:2]] == ["top", f"top {ALL[0]}"]
    assert {f"top {name}" for name in ALL} <= {place.place for place in places}
    assert set(places[0].words) == set(ALL)
    for shell, make in SCRIPTS.items():
        text = make(places)
        for place in places:
            missing = [w for flag in place.flags for w in flag.words if w not in text]
            assert not missing, (shell, place.place)


def test_an_unknown_shell_is_refused(env: dict[str, str], forks: Forks) -> None:
    told = forks.run([*MANAGER, "tcsh"], env=env).expect(2)
    assert "bash" in told.err


def test_the_help_says_how_to_switch_it_on(env: dict[str, str], forks: Forks) -> None:
    told = forks.run([*MANAGER, "--help"], env=env).expect().out
    assert all(word in told for word in ("~/.bashrc", "~/.zshrc", "~/.config/fish", "python3 manage_pod.py"))
