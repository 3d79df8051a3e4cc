"""Not the command ``schedule``: ``doctor``'s look at what should run the passes, and at each line of it."""

import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

from llmpod.cli.checks import Check, Site, ok, problem, warning
from llmpod.cli.checks_files import log_file
from llmpod.cli.scheduled import Installed, look, passwd_home
from llmpod.errors import LlmpodError
from llmpod.lifecycle.crontab import Entry
from llmpod.lifecycle.nouns import thing_of
from llmpod.lifecycle.units import UserUnits

_DAEMONS = frozenset({"cron", "crond", "fcron"})
_LINGER = Path("/var/lib/systemd/linger")
WRITTEN_BY_HAND = "crontab -e"


def installed(site: Site) -> Installed | LlmpodError:
    """What is scheduled, or why that cannot be known."""
    try:
        return look(site.call, site.store.install_id if site.store else None)
    except LlmpodError as e:
        return LlmpodError(e.message, hint=WRITTEN_BY_HAND if WRITTEN_BY_HAND in e.hint else "crontab -l")


def schedule(site: Site, found: Installed | LlmpodError) -> Iterator[Check]:
    """Whether something runs the passes, one thing only, and whether its lines can work."""
    if isinstance(found, LlmpodError):
        yield problem("schedule", found.message, found.hint)
        return
    if not found.entries and not found.units:
        called = thing_of(site.config.common.backend)
        text = f"nothing runs passes: no {called} is watched, and only the {called} itself ends it"
        yield warning("schedule", text, site.manage("schedule install cron"))
        return
    yield _what(site, found)
    for entry in found.entries:
        yield from line(site, entry)
    if found.entries:
        yield from daemon()
    if found.units:
        yield from _timer(site, found)


def _what(site: Site, found: Installed) -> Check:
    lines = [str(entry.number) for entry in found.entries]
    by_hand = [str(entry.number) for entry in found.entries if entry.block is None]
    where = f"crontab line {', '.join(lines)}"
    if found.units and found.entries:
        mend = (
            WRITTEN_BY_HAND if by_hand else f"{site.manage('schedule remove')}   # then install one of them"
        )
        return problem("schedule", f"both systemd and cron ({where}) run the passes", mend)
    if found.units:
        return ok("schedule", f"systemd: {', '.join(found.units)}")
    if sum(not entry.is_shutdown for entry in found.entries) > 1:
        return warning("schedule", f"cron runs the passes more than once ({where})", WRITTEN_BY_HAND)
    if all(entry.is_shutdown for entry in found.entries):
        return problem("schedule", f"cron only shuts down ({where})", site.manage("schedule install cron"))
    return ok("schedule", f"cron: {where}" + (" (by hand)" if by_hand else ""))


# --- one line of the crontab ----------------------------------------------------------------------------------------
def line(site: Site, entry: Entry) -> Iterator[Check]:
    """What can be seen of a line without running it."""
    again = site.manage("schedule install cron")
    mend = again if entry.block else f"{WRITTEN_BY_HAND}   # remove line {entry.number}, then: {again}"
    for fault in faults(entry):
        yield problem("line", f"crontab line {entry.number}: {fault}", mend)
    if target := entry.log_file:
        home = entry.environ.get("HOME") or passwd_home()
        path = Path(target.replace("${HOME}", home).replace("$HOME", home))
        yield log_file(Path(home) / path)


def faults(entry: Entry) -> Iterator[str]:
    """What is wrong with the text of a line, given how cron reads and runs it."""
    if entry.is_cut:
        yield "an unescaped % cuts the command there; cron needs \\%"
    for what, value in (
        ("script", entry.script),
        ("configuration", entry.config),
        ("log file", entry.log_file),
    ):
        if value and not value.startswith(("/", "~", "$")):
            yield f"the {what} {value} is a relative path, and cron starts in the home directory"


def daemon() -> Iterator[Check]:
    """Whether a cron runs at all; a container or WSL often has none. Without /proc that cannot be seen."""
    if not Path("/proc/self").exists():
        return
    running = {name for path in Path("/proc").glob("[0-9]*/comm") if (name := _read(path)) in _DAEMONS}
    if running:
        yield ok("cron", f"{', '.join(sorted(running))} runs")
    else:
        yield problem(
            "cron",
            "no cron runs on this machine",
            "sudo service cron start   # or: sudo systemctl enable --now cron",
        )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # it ended meanwhile
        return ""


# --- systemd --------------------------------------------------------------------------------------------------------
def _timer(site: Site, found: Installed) -> Iterator[Check]:
    active = UserUnits(found.install_id, site.call.environ).is_active()
    if active is None:
        yield warning("timer", "systemd cannot be asked from here", "systemctl --user list-timers")
    elif not active:
        yield problem("timer", "the timer does not run", site.manage("schedule install systemd"))
    else:
        yield ok("timer", "the timer runs")
    if _LINGER.parent.is_dir() and not (_LINGER / user(site.call.environ)).exists():
        yield warning("timer", "the timer ends with your last session", "loginctl enable-linger")


def user(environ: Mapping[str, str]) -> str:
    """The name of the user who runs this."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return environ.get("LOGNAME", str(os.geteuid()))
