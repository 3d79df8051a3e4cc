"""Not the command line: the three completion scripts, made from its levels. They start no program while completing.

Each keeps to what old shells have: bash 3.2 (macOS), zsh 5, fish 3.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from llmpod.cli.levels import TOP, Flag, Level

SCRIPT = "manage_pod.py"
_BASH = """\
# completion of llmpod for bash
_llmpod() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} at={top} i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${{COMP_WORDS[i]}}" in
{walk}
        esac
    done
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case "$at $prev" in
{values}
    esac
    case "$at" in
{places}
    esac
}}
_llmpod_words() {{
    COMPREPLY=($(compgen -W "$1" -- "$2"))
}}
_llmpod_files() {{
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY=($(compgen -f -- "$1"))
}}
_llmpod_python() {{
    if [[ $COMP_CWORD -gt 1 && ${{COMP_WORDS[1]##*/}} == {script} ]]; then
        COMP_WORDS=("${{COMP_WORDS[@]:1}}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _llmpod
    elif [[ -n $_llmpod_before ]]; then
        "$_llmpod_before" "$@"
    fi
}}
complete -F _llmpod {script} llmpod
if declare -F _comp_load >/dev/null; then
    _comp_load python3
elif declare -F _completion_loader >/dev/null; then
    _completion_loader python3
fi
_llmpod_before=$(complete -p python3 2>/dev/null | sed -n 's/.* -F \\([^ ]*\\).*/\\1/p')
[[ $_llmpod_before == _llmpod_python ]] && _llmpod_before=
complete -o bashdefault -o default -F _llmpod_python python3 python
"""
_ZSH = """\
# completion of llmpod for zsh
_llmpod() {{
    local at={top} prev=${{words[CURRENT-1]}} i
    local -a found
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${{words[i]}}" in
{walk}
        esac
    done
    if [[ $PREFIX == --*=* ]]; then
        prev=${{PREFIX%%=*}}
        compset -P '*='
    fi
    case "$at $prev" in
{values}
    esac
    case "$at" in
{places}
    esac
    _describe -t llmpod word found
}}
_llmpod_python() {{
    if [[ $CURRENT -gt 2 && ${{words[2]:t}} == {script} ]]; then
        shift words
        CURRENT=$((CURRENT - 1))
        _llmpod
    elif (( $+functions[_python] )); then
        _python "$@"
    else
        _files
    fi
}}
compdef _llmpod {script} llmpod
compdef _llmpod_python python3 python
"""
_FISH = """\
# completion of llmpod for fish
function __llmpod_at
    set -l words (commandline -opc)
    switch $words[1]
        case 'python*' '*/python*'
            set -e words[1]
    end
    string match -qr '(^|/)({script}|llmpod)$' -- $words[1]; or return 1
    set -l at {top}
    set -l skip 0
    for word in $words[2..-1]
        if test $skip -eq 1
            set skip 0
            continue
        end
        switch "$at $word"
{walk}
        end
    end
    echo $at
end
{lines}
"""


def bash(levels: Sequence[Level]) -> str:
    """For bash 3.2 or newer."""
    walk = [f"{_each(_value_words(level))}) i=$((i + 1)) ;;" for level in levels if _value_words(level)]
    walk += [f'"{level.place}") at="{level.place}" ;;' for level in levels if level.place != TOP]
    values: list[str] = []
    for level, flag in _value_flags(levels):
        act = f'_llmpod_words "{" ".join(flag.choices)}" "$cur"' if flag.choices else ":"
        act = '_llmpod_files "$cur"' if flag.takes_file else act
        values.append(f"{_each(_after(level, flag))}) {act}; return ;;")
    places = [
        f'"{level.place}") if [[ $cur == -* ]]; then _llmpod_words "{" ".join(_spelled(level))}" "$cur"; '
        f'else _llmpod_words "{" ".join(level.words)}" "$cur"; fi ;;'
        for level in levels
    ]
    return _BASH.format(
        top=TOP, script=SCRIPT, walk=_rows(walk), values=_rows(values, 8), places=_rows(places, 8)
    )


def zsh(levels: Sequence[Level]) -> str:
    """For zsh 5 or newer, after ``compinit``."""
    walk = [f"({_each(_value_words(level))}) i=$((i + 1)) ;;" for level in levels if _value_words(level)]
    walk += [f'("{level.place}") at="{level.place}" ;;' for level in levels if level.place != TOP]
    values = []
    for level, flag in _value_flags(levels):
        act = f"compadd -- {' '.join(flag.choices)}" if flag.choices else ":"
        act = "_files" if flag.takes_file else act
        values.append(f"({_each(_after(level, flag))}) {act}; return ;;")
    places = []
    for level in levels:
        flags = " ".join(_told(word, flag.help) for flag in level.flags for word in flag.words)
        words = " ".join(_told(word, text) for word, text in level.words.items())
        places.append(
            f'("{level.place}") if [[ $PREFIX == -* ]]; then found=({flags}); else found=({words}); fi ;;'
        )
    return _ZSH.format(
        top=TOP, script=SCRIPT, walk=_rows(walk), values=_rows(values, 8), places=_rows(places, 8)
    )


def fish(levels: Sequence[Level]) -> str:
    """For fish 3 or newer."""
    walk = [
        f"case {_each(_value_words(level), quote=_quoted)}\n    set skip 1"
        for level in levels
        if _value_words(level)
    ]
    walk += [
        f"case {_quoted(level.place)}\n    set at {_quoted(level.place)}"
        for level in levels
        if level.place != TOP
    ]
    rows = "\n".join(walk).splitlines()
    lines = [line for level in levels for line in _fish_lines(level)]
    every = [line.replace("@", name, 1) for name in (SCRIPT, "llmpod", "python3", "python") for line in lines]
    return _FISH.format(top=TOP, script=SCRIPT, walk=_rows(rows, 8), lines="\n".join(every))


def _fish_lines(level: Level) -> Iterator[str]:
    when = f"-n {_quoted(f'contains -- {_quoted(level.place)} (__llmpod_at)')}"
    yield f"complete -c @ {when} -f"
    for word, text in level.words.items():
        yield f"complete -c @ {when} -f -a {_quoted(word)} -d {_quoted(text)}"
    for flag in level.flags:
        spelled = " ".join(f"-l {w[2:]}" if w.startswith("--") else f"-s {w[1:]}" for w in flag.words)
        value = " -r" + (" -F" if flag.takes_file else " -f") if flag.takes_value else ""
        value += f" -a {_quoted(' '.join(flag.choices))}" if flag.choices else ""
        yield f"complete -c @ {when} {spelled}{value} -d {_quoted(flag.help)}"


# --- what the three have in common
def _value_flags(levels: Iterable[Level]) -> Iterator[tuple[Level, Flag]]:
    return ((level, flag) for level in levels for flag in level.flags if flag.takes_value)


def _after(level: Level, flag: Flag) -> list[str]:
    return [f"{level.place} {word}" for word in flag.words]


def _value_words(level: Level) -> list[str]:
    """The options of a level whose next word is a value and so no command."""
    return [word for _, flag in _value_flags([level]) for word in _after(level, flag)]


def _spelled(level: Level) -> list[str]:
    return [word for flag in level.flags for word in flag.words]


def _double(text: str) -> str:
    return f'"{text}"'


def _quoted(text: str) -> str:
    """In single quotes, as fish and zsh read them inside an eval-free script."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _told(word: str, text: str) -> str:
    """``word:what it is for`` for zsh's _describe."""
    return "'" + f"{word}:{text}".replace("'", "'\\''") + "'"


def _each(words: Sequence[str], *, quote: Callable[[str], str] = _double) -> str:
    return (" " if quote is _quoted else " | ").join(map(quote, words))


def _rows(rows: Iterable[str], indent: int = 12) -> str:
    return "\n".join(" " * indent + row for row in rows)


SCRIPTS: Mapping[str, Callable[[Sequence[Level]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
