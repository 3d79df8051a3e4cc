"""Not systemd: puts our user units where systemd looks for them, switches them on, takes them away again.

The units are files, so they can be written and enabled where no systemd answers (a container, a session without a
bus); what could not be done then is handed back as commands to type.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from llmpod.config.children import SYSTEMD, child_environ
from llmpod.errors import StateError
from llmpod.lifecycle.files import write_atomic
from llmpod.lifecycle.schedule import models_unit, unit_name

LIMIT_SECONDS = 60
SYSTEMCTL = ("systemctl", "--user")


class UserUnits:
    """The user units of one installation.

    Args:
        install_id: whose.
        environ: tells where units and the program ``systemctl`` are found (systemd.unit(5), XDG).
    """

    def __init__(self, install_id: str, environ: Mapping[str, str]) -> None:
        home = Path(environ.get("HOME", "~")).expanduser()
        self._id = install_id
        self._environ = child_environ(environ, *SYSTEMD)
        self.directory = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd" / "user"
        self._stamps = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "systemd" / "timers"

    def __repr__(self) -> str:
        return f"UserUnits({self._id} in {self.directory})"

    def installed(self) -> dict[str, str]:
        """The text of our unit files by name; empty when there are none. Raises StateError when unreadable."""
        try:
            return {path.name: path.read_text(encoding="utf-8") for path in self._files()}
        except (OSError, UnicodeDecodeError) as e:
            raise StateError(f"Cannot read the units in {self.directory}: {e}.") from None

    def install(self, units: Mapping[str, str]) -> list[str]:
        """Write the units, remove those of ours that are not among them, enable and start them.

        The unit of proxy and models is started without waiting, and left alone where it is active.

        Returns:
            The commands that are left to type, in their order; empty when everything is done.

        Raises:
            StateError: a file cannot be written.
        """
        timers = sorted(name for name in units if name.endswith(".timer"))
        models = [name for name in units if name == models_unit(self._id)]
        self._drop([path.name for path in self._files() if path.name not in units])
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise StateError(f"Cannot make {self.directory}: {e.strerror}.") from None
        for name, text in units.items():
            write_atomic(self.directory / name, text)
        start = [["start", "--no-block", *models]] if models else []
        return self._do([["enable", *timers, *models], ["daemon-reload"], ["restart", *timers], *start])

    def remove(self) -> list[str]:
        """Stop the timers and leave nothing behind. A pass that runs is not cut off, and models go on.

        Returns:
            The commands that are left to type.
        """
        names = [path.name for path in self._files()]
        if not names:
            return []
        self._drop(names)
        return self._do([["daemon-reload"]])

    def is_active(self) -> bool | None:
        """Whether the watchdog's timer runs now; None where no systemd answers."""
        done = self._call("is-active", f"{unit_name(self._id)}.timer")
        said = done.stdout.strip() if done else ""
        return said == "active" if said in ("active", "inactive", "failed", "activating", "unknown") else None

    def has_models(self) -> bool:
        """Whether the unit of proxy and models is installed."""
        return (self.directory / models_unit(self._id)).exists()

    def restarts(self) -> bool:
        """Whether the unit of proxy and models is stopped only to be started again at once.

        A service is not told (systemd.exec(5) has no variable for it), but its job is listed until it ended.
        """
        done = self._call("list-jobs", "--no-legend", "--plain", models_unit(self._id))
        return done is not None and done.returncode == 0 and "restart" in done.stdout.split()

    def _files(self) -> list[Path]:
        return sorted(
            path
            for kind in ("service", "timer")
            for path in self.directory.glob(f"llmpod-{self._id}*.{kind}")
        )

    def _drop(self, names: list[str]) -> None:
        """Without systemd too, nothing of these units must come back with the next login."""
        timers = [name for name in names if name.endswith(".timer")]
        models = [name for name in names if name == models_unit(self._id)]
        if timers:
            self._call("disable", "--now", *timers)
        if models:
            self._call("disable", *models)
        wants = [self.directory / f"{target}.target.wants" for target in ("timers", "default")]
        try:
            for name in names:
                for path in (
                    self.directory / name,
                    *(w / name for w in wants),
                    self._stamps / f"stamp-{name}",
                ):
                    path.unlink(missing_ok=True)
        except OSError as e:
            raise StateError(f"Cannot remove a unit: {e}.") from None
        if models:  # its stop sees that the file has gone, and orders nothing
            self._call("stop", *models)
        for directory in (*wants, self.directory, self.directory.parent):
            if directory.is_dir() and not any(directory.iterdir()):
                directory.rmdir()

    def _do(self, calls: list[list[str]]) -> list[str]:
        """Run each; the commands from the first failure on."""
        for number, words in enumerate(calls):
            done = self._call(*words)
            if done is None or done.returncode:
                return [" ".join([*SYSTEMCTL, *left]) for left in calls[number:]]
        return []

    def _call(self, *words: str) -> "subprocess.CompletedProcess[str] | None":
        try:
            return subprocess.run(
                [*SYSTEMCTL, *words],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=LIMIT_SECONDS,
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
