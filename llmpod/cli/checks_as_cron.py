"""Not cron: runs ``doctor`` again with what a scheduled pass gets, by the very command that is scheduled.

Measured with Debian's cron 3.0pl1: a job sees HOME, LOGNAME, SHELL, ``PATH=/usr/bin:/bin``, the assignments in the
crontab and nothing that is exported in a terminal; its directory is the home of the user database, it has no tty.
"""

import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmpod.cli.checks import Check, Site, Status, problem, warning
from llmpod.cli.checks_schedule import user
from llmpod.cli.scheduled import MANAGER, Installed, passwd_home
from llmpod.cli.wiring import DEFAULT_CONFIG
from llmpod.lifecycle.schedule import PASS, unit_name

LIMIT_SECONDS = 180
_CREDENTIAL = "LoadCredential=runpod_api_key:"
_LOST = {"HF_TOKEN": "hf_token", "RUNPOD_API_BASE_URL": "runpod_api_url"}


@dataclass(frozen=True, slots=True)
class Run:
    """One scheduled command.

    Args:
        where: it stands.
        command: makes the shell's line, its program called with other arguments in front of its own.
        environ: what it gets to see.
        credential: the key file that systemd lends it, or None.
    """

    where: str
    command: Callable[[str], str]
    environ: Mapping[str, str]
    credential: Path | None = None


def rerun(site: Site, found: Installed | None) -> Iterator[Check]:
    """The checks as the scheduled command sees them; of several that are called the same way, one stands for all."""
    seen: set[str] = set()
    for run in _runs(site, found):
        if (plain := run.command("")) not in seen:
            seen.add(plain)
            yield from _lost(site, run)
            yield from _examined(site, run)


def _runs(site: Site, found: Installed | None) -> Iterator[Run]:
    """What is scheduled, else what the README says to write into a crontab."""
    if found and found.units:
        yield from _units(found)
    for entry in found.entries if found else ():
        yield Run(f"crontab line {entry.number}", entry.instead, _cron_environ(site, entry.environ))
    if not found or not (found.units or found.entries):
        config = site.config.path
        named = ["--config", str(config)] if config != DEFAULT_CONFIG else []
        command = _around(["python3", str(MANAGER)], named)
        yield Run("the README's line for cron", command, _cron_environ(site, {}))


def _around(program: Sequence[str], arguments: Sequence[str]) -> Callable[[str], str]:
    return lambda more: " ".join([shlex.join(program), more, shlex.join(arguments)])


def _cron_environ(site: Site, assigned: Mapping[str, str]) -> dict[str, str]:
    name = user(site.call.environ)
    usual = {"HOME": passwd_home(), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return {**usual, **assigned, "LOGNAME": name}


def _units(found: Installed) -> Iterator[Run]:
    """The watchdog's ``ExecStart`` under what a user manager gives (systemd.exec(5))."""
    lines = found.units.get(f"{unit_name(found.install_id)}.service", "").splitlines()
    lent = [
        line.removeprefix(_CREDENTIAL).replace("%%", "%") for line in lines if line.startswith(_CREDENTIAL)
    ]
    environ = {"HOME": passwd_home(), "PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/sh"}
    for line in lines:
        if line.startswith("ExecStart="):
            words = shlex.split(line.partition("=")[2].replace("%%", "%").replace("$$", "$"))
            options = words[2 : -len(PASS)] if tuple(words[-len(PASS) :]) == PASS else words[2:]
            command = _around(words[:2], options)
            yield Run("the unit", command, environ, Path(lent[0]) if lent else None)


def _lost(site: Site, run: Run) -> Iterator[Check]:
    """Variables that change what llmpod does here and that a scheduled pass will not have."""
    for name, key in _LOST.items():
        if site.call.environ.get(name) and name not in run.environ:
            yield warning(
                "environment",
                f"{name} is exported here; {run.where} does not see it",
                f"{site.edit}   # set {key}",
            )


def _examined(site: Site, run: Run) -> Iterator[Check]:
    if run.credential and not run.credential.exists():
        again = site.manage("schedule install systemd")
        yield problem("command", f"{run.where} does not start: there is no {run.credential}", again)
        return
    with tempfile.TemporaryDirectory(prefix="llmpod-doctor-") as directory:
        report = Path(directory) / "report.json"
        command = run.command(f"doctor --report {shlex.quote(str(report))}")
        environ = dict(run.environ)
        if run.credential:
            environ["CREDENTIALS_DIRECTORY"] = directory
            (Path(directory) / "runpod_api_key").symlink_to(run.credential)
        said = _shell(command, environ)
        if report.exists():
            yield from _told(site, json.loads(report.read_text(encoding="utf-8")))
            return
    mend = f"{site.manage('schedule install cron')}   # writes a line that works"
    yield problem("command", f"{run.where} does not start: {said}", mend)


def _shell(command: str, environ: Mapping[str, str]) -> str:
    """Run it as cron does; the end of what it said on standard error."""
    home = environ["HOME"]
    try:
        done = subprocess.run(
            [environ["SHELL"], "-c", command],
            env=environ,
            cwd=home if os.access(home, os.X_OK) else "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            umask=0o022,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except OSError as e:
        return f"{environ['SHELL']}: {e.strerror}"
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_SECONDS} s"
    lines = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no word of why'} (exit code {done.returncode})"


def _told(site: Site, document: list[dict[str, str]]) -> Iterator[Check]:
    exported = any(site.call.environ.get(name) for name in ("RUNPOD_API_KEY", "RUNPOD_API_KEY_FILE"))
    for item in document:
        check = Check(item["name"], Status(item["status"]), item["found"], item["mend"])
        if check.name == "key" and check.status is Status.PROBLEM and exported:
            note = "(It is exported in this terminal; a scheduled pass does not see that.)"
            check = problem("key", f"{check.found} {note}", check.mend)
        yield check
