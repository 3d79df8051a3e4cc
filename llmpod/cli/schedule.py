"""Not the watchdog: the command ``schedule``, which asks cron or systemd to run it."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from llmpod import config as configuration
from llmpod.cli.command import Command, Invocation
from llmpod.cli.scheduled import (
    MANAGER,
    Installed,
    identity,
    key_mend,
    key_trouble,
    log_directory,
    look,
    manage,
    passwd_home,
    unseen_key_file,
)
from llmpod.errors import ConfigError, LlmpodError
from llmpod.lifecycle import crontab, files, schedule
from llmpod.lifecycle.crontab import Crontab
from llmpod.lifecycle.schedule import Job
from llmpod.lifecycle.units import UserUnits

UNFINISHED = 75


def _job(call: Invocation, install_id: str, *, systemd: bool) -> Job:
    found = unseen_key_file(call.environ)
    usual = configuration.key_file(call.environ)
    return Job(
        install_id=install_id,
        python=Path(sys.executable),
        script=MANAGER,
        config=call.config_path.absolute(),
        log_file=log_directory(call.environ) / f"{install_id}.log",
        key_file=found or (usual if systemd and usual.exists() else None),
        shutdown_at=call.options.shutdown_at,
        with_models=call.options.with_models,
    )


# --- the command ------------------------------------------------------------------------------------------
def run(call: Invocation) -> int:
    """``schedule install|remove|show``."""
    if call.options.action == "show":
        return _show(call)
    if call.options.action == "remove":
        return _show(call) if call.options.preview else _remove(call)
    call.config()  # a schedule for a configuration that is wrong would only fail every five minutes
    return _install(call)


def _install(call: Invocation) -> int:
    there = look(call, identity(call))
    systemd = call.options.kind == "systemd"
    if call.options.with_models and not systemd:
        raise LlmpodError(
            "Cron cannot start and stop a proxy.",
            hint=f"Run: {manage(call, 'schedule install systemd --proxy')}",
        )
    job = _job(call, there.install_id, systemd=systemd)
    _refuse_both(call, there, systemd=systemd)
    if not systemd and there.table is None:
        raise crontab.missing()
    if call.options.preview:
        _preview(call, job, systemd=systemd)
        return 0
    code = _install_units(call, job) if systemd else _install_block(call, job, there)
    if _needs_key(call) and (trouble := key_trouble(call.environ)):
        call.say(f"\nWARNING: a scheduled pass will not find the RunPod key: {trouble.message} Type:")
        call.say(f"  {key_mend(trouble, {'HOME': passwd_home()})}")
    return code


def _refuse_both(call: Invocation, there: Installed, *, systemd: bool) -> None:
    """Two schedulers would do no harm to a pod, but to whoever looks for what started it."""
    remove = f"Run: {manage(call, 'schedule remove')}"
    if not systemd and there.units:
        raise LlmpodError("systemd already runs the passes of this installation.", hint=remove)
    if systemd and there.block:
        raise LlmpodError("cron already runs the passes of this installation.", hint=remove)
    if systemd and there.entries:
        lines = ", ".join(str(entry.number) for entry in there.entries)
        raise LlmpodError(
            f"Your crontab already runs passes of this installation (line {lines}, written by hand).",
            hint="Remove that with `crontab -e`.",
        )


def _preview(call: Invocation, job: Job, *, systemd: bool) -> None:
    if not systemd:
        call.say(f"would be put into your crontab:\n{schedule.cron_block(job)}")
        return
    directory = UserUnits(job.install_id, call.environ).directory
    for name, text in schedule.units(job).items():
        call.say(f"would be written to {directory / name}:\n{text}")


def _install_block(call: Invocation, job: Job, there: Installed) -> int:
    files.private_dir(job.log_file.parent)
    table = there.table or ""
    Crontab(call.environ).write(crontab.with_block(table, job.install_id, schedule.cron_block(job)))
    call.say(
        f"cron now runs a pass every {schedule.EVERY_MINUTES} minutes{_nightly(job)}.\n"
        f"Watch it:  tail -F {shlex.quote(str(job.log_file))}\n"
        f"           {manage(call, 'status')}\n"
        f"Check it:  {manage(call, 'doctor --as-cron')}"
    )
    for entry in there.entries:
        if entry.block is None:
            call.say(
                f"Line {entry.number} of your crontab does the same by hand; remove it with `crontab -e`."
            )
    return 0


def _install_units(call: Invocation, job: Job) -> int:
    left = UserUnits(job.install_id, call.environ).install(schedule.units(job))
    name = schedule.unit_name(job.install_id)
    if left:
        call.say("The units are written, but systemd does not answer here. In a session of your own, type:")
        for command in left:
            call.say(f"  {command}")
    else:
        call.say(f"systemd now runs a pass every {schedule.EVERY_MINUTES} minutes{_nightly(job)}.")
    if job.with_models:
        unit = schedule.models_unit(job.install_id)
        call.say(f"Proxy and models start and stop with your session:  systemctl --user status {unit}")
    call.say(
        f"Watch it:  journalctl --user -f -u {name}\n"
        f"           systemctl --user list-timers '{name}*'\n"
        f"           {manage(call, 'status')}\n"
        f"Check it:  {manage(call, 'doctor --as-cron')}\n"
        "Units of a user end with the last session. To keep them running:  loginctl enable-linger"
    )
    return UNFINISHED if left else 0


def _nightly(job: Job) -> str:
    return ", and --shutdown at {:02d}:{:02d}".format(*job.shutdown_at) if job.shutdown_at else ""


def _remove(call: Invocation) -> int:
    install_id = identity(call)
    there = look(call, install_id)
    if there.table is not None and there.block:
        Crontab(call.environ).write(crontab.without_block(there.table, install_id))
        call.say("The lines are out of your crontab.")
    left = UserUnits(install_id, call.environ).remove()
    if there.units:
        call.say(f"The units are removed: {', '.join(there.units)}.")
    for command in left:
        call.say(f"systemd does not answer here; in a session of your own, type:  {command}")
    for path in _logs(call, install_id):
        path.unlink(missing_ok=True)
    _drop_empty(log_directory(call.environ))
    if not there.block and not there.units:
        call.say("Nothing of this installation is scheduled.")
    for entry in there.entries:
        if entry.block is None:
            call.say(f"Line {entry.number} of your crontab was written by hand; remove it with `crontab -e`.")
    return 0


def _logs(call: Invocation, install_id: str) -> Iterator[Path]:
    log = log_directory(call.environ) / f"{install_id}.log"
    yield from (log, log.with_name(log.name + ".1"))


def _drop_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def _show(call: Invocation) -> int:
    there = look(call, identity(call))
    if there.block:
        call.say(f"In your crontab:\n{there.block}")
    for entry in there.entries:
        if entry.block is None:
            call.say(f"Line {entry.number} of your crontab, by hand:\n{entry.command}")
    units = UserUnits(there.install_id, call.environ)
    for name, text in there.units.items():
        call.say(f"{units.directory / name}:\n{text}")
    if there.units:
        active = {True: "runs", False: "does not run", None: "cannot be asked here"}[units.is_active()]
        call.say(f"The timer {active}.")
    if not there.entries and not there.units:
        call.say(f"Nothing is scheduled. To change that: {manage(call, 'schedule install cron')}")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("install", "remove", "show"))
    parser.add_argument(
        "kind", nargs="?", choices=("cron", "systemd"), default="cron", help="for install; default: cron"
    )
    parser.add_argument(
        "--shutdown-at", type=_time_of_day, metavar="HH:MM", help="also --shutdown every night then"
    )
    parser.add_argument(
        "--proxy",
        dest="with_models",
        action="store_true",
        help="systemd: also a unit that starts the proxy, and stops it and all models when it stops",
    )
    # a destination of its own: the program's --dry-run is another thing
    parser.add_argument(
        "--dry-run", dest="preview", action="store_true", help="print what install would write"
    )


def _time_of_day(text: str) -> tuple[int, int]:
    try:
        return schedule.clock_time(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _needs_key(call: Invocation) -> bool:
    """A configuration that is wrong now may want one when it is right."""
    try:
        return configuration.needs_key(call.config().common.backend)
    except ConfigError:
        return True


COMMAND = Command("schedule", "let cron or systemd run the watchdog every five minutes", run, _arguments)
