"""Not the command: what runs the passes of an installation now, and what such a run gets to see."""

import os
import pwd
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmpod import config as configuration
from llmpod.cli.command import Invocation
from llmpod.cli.wiring import DEFAULT_CONFIG, HOME
from llmpod.errors import ConfigError, LlmpodError
from llmpod.lifecycle import crontab, schedule
from llmpod.lifecycle.crontab import Crontab, Entry
from llmpod.lifecycle.store import Store
from llmpod.lifecycle.units import UserUnits

MANAGER = HOME / "manage_pod.py"
_CHMOD = "Run: chmod 600 "  # what the credentials say to do about a file that others may read


@dataclass(frozen=True, slots=True)
class Installed:
    """What runs passes of one installation.

    Args:
        install_id: whose.
        table: the user's whole crontab, or None where there is no program ``crontab``.
        block: our lines in it, or None.
        entries: every line in it that runs this installation's passes, by hand or ours.
        units: our systemd units, text by name.
    """

    install_id: str
    table: str | None
    block: str | None
    entries: tuple[Entry, ...]
    units: Mapping[str, str]


def look(call: Invocation, install_id: str | None) -> Installed:
    """What is installed now.

    Args:
        call: gives the configuration and the environment.
        install_id: whose; None when it cannot be known: then a line is recognised by its configuration only, and
            units are not looked for.

    Raises:
        StateError: crontab or units cannot be read.
    """
    table = Crontab(call.environ).read()
    mine = tuple(e for e in crontab.entries(table or "") if concerns(e, call.config_path, install_id))
    if install_id is None:
        return Installed("", table, None, mine, {})
    units = UserUnits(install_id, call.environ).installed()
    return Installed(install_id, table, crontab.block_of(table or "", install_id), mine, units)


def concerns(entry: Entry, config: Path, install_id: str | None) -> bool:
    """Whether a line runs this installation; one with relative paths may, so it counts."""
    if entry.block is not None and install_id is not None:
        return entry.block == install_id
    home = entry.environ.get("HOME") or passwd_home()
    script = _expanded(entry.script, home)
    named = _expanded(entry.config, home) if entry.config else DEFAULT_CONFIG
    return (not script.is_absolute() or script.resolve() == MANAGER) and (
        named == config.absolute() or (not named.is_absolute() and named.name == config.name)
    )


def _expanded(path: str, home: str) -> Path:
    for name in ("${HOME}", "$HOME"):
        path = path.replace(name, home)
    return Path(home) / path[2:] if path.startswith("~/") else Path(path)


def passwd_home() -> str:
    """The home directory that cron and systemd give to a job; an exported HOME does not matter to them."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a container's user without an entry; cron has none for it either
        return "/"


def log_directory(environ: Mapping[str, str]) -> Path:
    """Where logs go: ``$XDG_STATE_HOME/llmpod`` (XDG Base Directory Specification 0.8)."""
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(state).absolute() / "llmpod"


def manage(call: Invocation, words: str) -> str:
    """A call of this program as a command to type."""
    config = (
        []
        if call.config_path.absolute() == DEFAULT_CONFIG
        else ["--config", str(call.config_path.absolute())]
    )
    return " ".join([shlex.join(["python3", str(MANAGER), *config]), words])


def identity(call: Invocation) -> str:
    """The installation's id, also of one whose configuration is wrong."""
    try:
        loaded = configuration.load(call.config_path, call.environ)
    except ConfigError:
        loaded = configuration.salvage(call.config_path, call.environ)
    return Store(loaded.state_file).install_id


# --- what a scheduled run will not find ----------------------------------------------------------------------
def unseen_key_file(environ: Mapping[str, str]) -> Path | None:
    """The key's file, when a job would not find it by itself: a variable of this shell led to it."""
    try:
        here = configuration.runpod_key(environ).source
    except LlmpodError:
        return None
    path = Path(here).expanduser()
    bare = configuration.key_file({"HOME": passwd_home()})
    if here.startswith("$") or path.suffix == ".toml" or path.absolute() == bare:
        return None
    return path.absolute()


def key_mend(error: LlmpodError, environ: Mapping[str, str]) -> str:
    """The command that puts a key where a pass with this environment looks first."""
    if error.hint.startswith(_CHMOD):
        return f"chmod 600 {shlex.quote(error.hint.removeprefix(_CHMOD))}"
    path = Path(environ.get(schedule.KEY_FILE) or configuration.key_file(environ))
    directory, file = shlex.quote(str(path.parent)), shlex.quote(str(path))
    return f"mkdir -p {directory} && (umask 077 && cat > {file})   # paste the key, Enter, Ctrl-D"


def key_trouble(environ: Mapping[str, str]) -> LlmpodError | None:
    """Why a scheduled pass would have no key, or None when it would."""
    found = unseen_key_file(environ)
    try:
        configuration.runpod_key({"HOME": passwd_home()} | ({schedule.KEY_FILE: str(found)} if found else {}))
    except LlmpodError as e:
        return e
    return None
