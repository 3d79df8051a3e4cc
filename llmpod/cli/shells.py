"""Not the command line: the three completion scripts, made from its levels. They start no program while completing.

Each keeps to what old shells have: bash 3.2 (macOS), zsh 5, fish 3. All walk the typed words the same way: ``at``
is the row of commands so far, an option's value is no command, and what may come next depends on ``at`` and the word
before.
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
            {valued}) i=$((i + 1)) ;;
            {commands}) at="$at ${{COMP_WORDS[i]}}" ;;
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
_llmpod_found=$(complete -p python3 2>/dev/null | sed -n 's/.* -F \\([^ ]*\\).*/\\1/p')
[[ $_llmpod_found == _llmpod_python ]] || _llmpod_before=$_llmpod_found
complete -o bashdefault -o default -F _llmpod_python python3 python
"""
_ZSH = """\
# completion of llmpod for zsh
_llmpod() {{
    local at={top} prev=${{words[CURRENT-1]}} i
    local -a found
    for ((i = 2; i < CURRENT; i++)); do
        case "$at ${{words[i]}}" in
            ({valued}) i=$((i + 1)) ;;
            ({commands}) at="$at ${{words[i]}}" ;;
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
    set -l typed (commandline -opc)
    switch $typed[1]
        case 'python*' '*/python*'
            set -e typed[1]
    end
    string match -qr '(^|/)({script}|llmpod)$' -- "$typed[1]"; or return 1
    set -l at {top}
    set -l prev
    for word in $typed[2..-1]
        if contains -- "$at $prev" {valued}
            set prev
            continue
        end
        set prev $word
        if contains -- "$at $word" {commands}
            set at "$at $word"
        end
    end
    echo $at
    echo "$at $prev"
end
function __llmpod_file
    set -l here (__llmpod_at); or return 1
    contains -- $here[2] {files}
end
function __llmpod_word
    __llmpod_at >/dev/null; and not __llmpod_file
end
function __llmpod_next
    set -l here (__llmpod_at); or return 1
    set -l front (string match -r -- '^--[^=]+=' (commandline -ct))
    test -n "$front"; and set here[2] "$here[1] "(string trim -r -c = -- $front)
    switch $here[2]
{values}
    end
    switch $here[1]
{places}
    end
end
for name in {script} llmpod python3 python
    complete -c $name -n __llmpod_word -f -a '(__llmpod_next)'
    complete -c $name -n __llmpod_file -F
end
"""


def bash(levels: Sequence[Level]) -> str:
    """For bash 3.2 or newer."""
    acts = {"file": '_llmpod_files "$cur"', "": ":"}
    values = []
    for kind, words in _values(levels).items():
        act = acts.get(kind, f'_llmpod_words "{kind}" "$cur"')
        values.append(f"{_either(words)}) {act}; return ;;")
    places = [
        f'"{level.place}") if [[ $cur == -* ]]; then _llmpod_words "{" ".join(_spelled(level))}" "$cur"; '
        f'else _llmpod_words "{" ".join(level.words)}" "$cur"; fi ;;'
        for level in levels
    ]
    return _filled(_BASH, levels, values=values, places=places)


def zsh(levels: Sequence[Level]) -> str:
    """For zsh 5 or newer, after ``compinit``."""
    acts = {"file": "_files", "": ":"}
    values = []
    for kind, words in _values(levels).items():
        values.append(f"({_either(words)}) {acts.get(kind, f'compadd -- {kind}')}; return ;;")
    places = []
    for level in levels:
        flags = " ".join(_told(word, flag.help) for flag in level.flags for word in flag.words)
        rows = " ".join(_told(word, text) for word, text in level.words.items())
        places.append(
            f'("{level.place}") if [[ $PREFIX == -* ]]; then found=({flags}); else found=({rows}); fi ;;'
        )
    return _filled(_ZSH, levels, values=values, places=places)


def fish(levels: Sequence[Level]) -> str:
    """For fish 3 or newer."""
    values = []
    for kind, words in _values(levels).items():
        offer = [f'    printf "$front%s\\n" {kind}'] if kind else []
        values += [f"case {_both(words)}", *offer, "    return"]
    places = []
    for level in levels:
        flags = [(word, flag.help) for flag in level.flags for word in flag.words]
        rows = [_fish(f"{word}\t{text}") for word, text in (*level.words.items(), *flags)]
        places += [f"case {_fish(level.place)}", f"    printf '%s\\n' {' '.join(rows)}"]
    return _filled(_FISH, levels, values=values, places=places)


# --- what the three have in common
def _filled(template: str, levels: Sequence[Level], *, values: Iterable[str], places: Iterable[str]) -> str:
    join = _both if template is _FISH else _either
    kinds = _values(levels)
    return template.format(
        top=TOP,
        script=SCRIPT,
        valued=join([word for words in kinds.values() for word in words]),
        files=join(kinds.get("file", [])),
        commands=join([level.place for level in levels if level.place != TOP]),
        values="\n".join(" " * 8 + row for row in values),
        places="\n".join(" " * 8 + row for row in places),
    )


def _values(levels: Iterable[Level]) -> dict[str, list[str]]:
    """The options that take a value, each after its place, by what the value is: ``file``, words, or anything."""
    found: dict[str, list[str]] = {}
    for level, flag in _valued(levels):
        kind = "file" if flag.takes_file else " ".join(flag.choices)
        found.setdefault(kind, []).extend(f"{level.place} {word}" for word in flag.words)
    return found


def _valued(levels: Iterable[Level]) -> Iterator[tuple[Level, Flag]]:
    return ((level, flag) for level in levels for flag in level.flags if flag.takes_value)


def _spelled(level: Level) -> list[str]:
    return [word for flag in level.flags for word in flag.words]


def _told(word: str, text: str) -> str:
    """``word:what it is for`` for zsh's _describe."""
    return "'" + f"{word}:{text}".replace("'", "'\\''") + "'"


def _either(words: Iterable[str]) -> str:
    """A pattern of bash and zsh."""
    return " | ".join(f'"{word}"' for word in words)


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _both(words: Iterable[str]) -> str:
    return " ".join(map(_fish, words))


SCRIPTS: Mapping[str, Callable[[Sequence[Level]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
