"""Not a scheduler: what cron or systemd is asked to run for one installation, spelled out. Pure; nothing is written.

Both run the watchdog every five minutes. Both give a job nearly nothing: another working directory, no exported
variable, ``PATH=/usr/bin:/bin`` (measured with Debian's cron 3.0pl1). So every path here is absolute.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from llmpod.errors import ConfigError

EVERY_MINUTES = 5
STAY_SECONDS = 270  # what falls due between two runs is seen to by the first of them
PASS_SECONDS = 295  # below the interval; a pass that is cut off anywhere is continued by the next one
SHUTDOWN_SECONDS = 360  # `--shutdown` waits up to 300 s for the pods' end
TEMPORARY = 75  # the exit code for trouble that goes away by itself
LATER = (69, TEMPORARY, 76, 77, 78)  # ends of a pass after which a later one goes on, and models may run
RETRY_SECONDS = 30
SHUTDOWN = "--shutdown"
PASS = ("pass", "--for", str(STAY_SECONDS))
KEY_FILE = "RUNPOD_API_KEY_FILE"


@dataclass(frozen=True, slots=True)
class Job:
    """What is to run.

    Args:
        install_id: eight hex digits that keep two installations of one user apart.
        python: the interpreter.
        script: ``manage_pod.py``.
        config: the configuration.
        log_file: where cron's output goes; systemd has its journal.
        key_file: a file with the RunPod key that is not found by itself, or None.
        shutdown_at: hour and minute of a nightly ``--shutdown`` (local time), or None.
        with_models: whether proxy and models also start and stop with the user's session (systemd only).

    Raises:
        ConfigError: a path is not absolute or cannot be spelled in a crontab or unit.
    """

    install_id: str
    python: Path
    script: Path
    config: Path
    log_file: Path
    key_file: Path | None = None
    shutdown_at: tuple[int, int] | None = None
    with_models: bool = False

    def __post_init__(self) -> None:
        for path in (self.python, self.script, self.config, self.log_file, self.key_file):
            if path is None:
                continue
            if not path.is_absolute():
                raise ConfigError(f"{path} is not an absolute path: a scheduler starts elsewhere.")
            # crons disagree on what a backslash means; a line break would start an entry of its own
            if re.search(r"[\x00-\x1f\x7f\\]", str(path)):
                raise ConfigError(
                    f"{str(path)!r} has a character in it that no crontab or unit can carry safely.",
                    hint="Move it to a path without backslashes and control characters.",
                )

    def argv(self, *more: str) -> tuple[str, ...]:
        """The command line as words."""
        return (str(self.python), str(self.script), "--config", str(self.config), *more)


def clock_time(text: str) -> tuple[int, int]:
    """``HH:MM`` as numbers. Raises ValueError, as an argument type should."""
    if (found := re.fullmatch(r"(\d{1,2}):(\d{2})", text)) and int(found[1]) < 24 and int(found[2]) < 60:
        return int(found[1]), int(found[2])
    raise ValueError(f"{text!r} is not a time of day like 00:00")


# --- cron -----------------------------------------------------------------------------------------------------------
def cron_block(job: Job) -> str:
    """The lines for a crontab, between markers that carry the installation's id."""
    passes = [f"*/{EVERY_MINUTES} * * * * {_cron_command(job, *PASS)}"]
    if job.shutdown_at:
        hour, minute = job.shutdown_at
        passes.append(f"{minute} {hour} * * * {_cron_command(job, SHUTDOWN)}")
    begin, end = markers(job.install_id)
    return "\n".join((f"{begin} (`schedule remove` takes these lines out)", *passes, end)) + "\n"


def markers(install_id: str) -> tuple[str, str]:
    """How the first line of a block begins, and its last line."""
    return f"# BEGIN llmpod {install_id}", f"# END llmpod {install_id}"


def _cron_command(job: Job, *more: str) -> str:
    """Quoted for any shell; cron itself reads ``%`` as a line break and takes the backslash away (crontab(5))."""
    named = f"{KEY_FILE}={shlex.quote(str(job.key_file))} " if job.key_file else ""
    command = named + shlex.join(job.argv("--log-file", str(job.log_file), *more))
    return command.replace("%", "\\%")


# --- systemd --------------------------------------------------------------------------------------------------------
_NOTE = "# Made by `manage_pod.py schedule install systemd`; `schedule remove` takes it away.\n"


def unit_name(install_id: str, *, shutdown: bool = False) -> str:
    """What the units of one installation are called, without their type."""
    return f"llmpod-{install_id}-shutdown" if shutdown else f"llmpod-{install_id}"


def models_unit(install_id: str) -> str:
    """The unit that is active while proxy and models are wanted."""
    return f"{unit_name(install_id)}-models.service"


def units(job: Job) -> dict[str, str]:
    """The text of each user unit by file name."""
    made = _pair(job, calendar=f"*:0/{EVERY_MINUTES}", shutdown=False)
    if job.shutdown_at:
        hour, minute = job.shutdown_at
        made |= _pair(job, calendar=f"*-*-* {hour:02d}:{minute:02d}:00", shutdown=True)
    if job.with_models:
        made[models_unit(job.install_id)] = _models(job)
    return made


def _pair(job: Job, *, calendar: str, shutdown: bool) -> dict[str, str]:
    name = unit_name(job.install_id, shutdown=shutdown)
    what = "nightly shutdown" if shutdown else "watchdog"
    title = f"llmpod {what} for {job.config}".replace("%", "%%")
    return {
        f"{name}.service": _service(job, title=title, shutdown=shutdown),
        f"{name}.timer": _timer(title, calendar),
    }


def _service(job: Job, *, title: str, shutdown: bool) -> str:
    """One pass, and those that fall due soon after it.

    The proxy is a child of a pass and must outlive it, whoever started the pass: cron, a person or this unit. Hence
    ``KillMode=process``. A unit of its own for the proxy would give it a second owner, which knows neither of a
    changed configuration nor of ``--shutdown``, and every pass by hand would find the port taken. A pass leaves
    nothing else behind, and systemd's note of the left-over process is the price. A oneshot has no time limit
    unless it is given one (systemd.service(5)).
    """
    return (
        f"{_NOTE}[Unit]\nDescription={title}\n\n[Service]\nType=oneshot\n"
        f"ExecStart={_exec_line(job.argv(*((SHUTDOWN,) if shutdown else PASS)))}\n"
        f"TimeoutStartSec={SHUTDOWN_SECONDS if shutdown else PASS_SECONDS}\n"
        f"KillMode=process\nSuccessExitStatus={TEMPORARY}\n{_confined(job)}"
    )


def _models(job: Job) -> str:
    """Proxy and models while a session lasts, or from boot to shutdown where the user lingers.

    It stays active without a process of its own, and its stop is the command that orders everything down: what to stop
    need not be a process of this machine. ``ExecStop`` does not run after a start that failed (systemd.service(5)), so
    a start counts as failed only where nothing of ours can run: another try follows then. A broken configuration or a
    missing key is none of those; the passes say what is wrong.
    ``KillMode=process`` as above. A ``PrivateTmp`` would hide the cache from the passes of cron and of people.
    """
    title = f"llmpod proxy and models of {job.config}".replace("%", "%%")
    return (
        f"{_NOTE}[Unit]\nDescription={title}\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart={_exec_line(job.argv('service', 'start'))}\n"
        f"ExecReload={_exec_line(job.argv('pass'))}\n"
        f"ExecStop={_exec_line(job.argv('service', 'stop'))}\n"
        f"TimeoutStartSec={PASS_SECONDS}\nTimeoutStopSec={SHUTDOWN_SECONDS}\nKillMode=process\n"
        f"Restart=on-failure\nRestartSec={RETRY_SECONDS}\n"
        f"SuccessExitStatus={' '.join(map(str, LATER))}\n"
        f"{_confined(job)}\n[Install]\nWantedBy=default.target\n"
    )


def _confined(job: Job) -> str:
    """What each of our services may not do, and the key that it gets."""
    credential = f"LoadCredential=runpod_api_key:{_percent(str(job.key_file))}\n" if job.key_file else ""
    return f"NoNewPrivileges=yes\nUMask=0077\n{credential}"


def _timer(title: str, calendar: str) -> str:
    """Missed runs are caught up with; without ``AccuracySec`` a run may be a minute late (systemd.timer(5))."""
    return (
        f"{_NOTE}[Unit]\nDescription={title}\n\n[Timer]\nOnCalendar={calendar}\nPersistent=yes\nAccuracySec=1s\n\n"
        "[Install]\nWantedBy=timers.target\n"
    )


def _exec_line(argv: tuple[str, ...]) -> str:
    """Quoted as systemd.service(5) reads a command line; variables are not looked for in the program's path."""
    program, *rest = (_percent(word).replace('"', '\\"') for word in argv)
    return " ".join([f'"{program}"', *(f'"{word.replace("$", "$$")}"' for word in rest)])


def _percent(text: str) -> str:
    return text.replace("%", "%%")
