"""Not a probe of the model: ``doctor``'s look at what runs, or should: lock, proxy, passes, switch, packages."""

import fcntl
import http.client
import importlib.metadata
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from llmpod.cli import demos, own
from llmpod.cli.checks import Check, Site, ok, problem, warning
from llmpod.cli.show import moment
from llmpod.cli.wiring import HOME
from llmpod.config import reached_at
from llmpod.errors import StateError
from llmpod.identity import process_id
from llmpod.lifecycle.nouns import thing_of
from llmpod.lifecycle.orders import PROXY
from llmpod.lifecycle.ports import is_taken, listener
from llmpod.lifecycle.supervision import read_notes
from llmpod.model import Direction, Record
from llmpod.text import duration

LONG_PASS_SECONDS = 600.0
LATE_SECONDS = 900.0


def lock(site: Site) -> Check:
    """Whether another pass is at work, and for how long."""
    path = site.directory / "lock"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ok("lock", "free, no pass ran yet")
    except OSError as e:
        return problem("lock", f"{path} cannot be opened: {e.strerror}", f"ls -l {shlex.quote(str(path))}")
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, for a moment: it takes nothing from anybody
    except BlockingIOError:
        return _held(fd, site.clock())
    finally:
        os.close(fd)
    return ok("lock", "free")


def _held(fd: int, now: float) -> Check:
    pid = os.pread(fd, 20, 0).decode("ascii", "replace").strip() or "?"
    held = now - os.fstat(fd).st_mtime
    text = f"held by pid {pid} ({_command(pid)}) for {duration(held)}"
    return warning("lock", text, f"kill {pid}") if held > LONG_PASS_SECONDS else ok("lock", text)


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "unknown program"
    return b" ".join(words).decode("utf-8", "replace").strip()[:120]


# --- the proxy -------------------------------------------------------------------------------------------------------
def proxy(site: Site) -> Check:
    """The port: free, ours and healthy, or taken by a stranger."""
    port = site.config.common.proxy_port
    if site.call.options.no_proxy:
        return ok("proxy", "left to somebody else (--no-proxy)")
    if not is_taken(reached_at(site.config.common.proxy_host), port):
        return _not_running(site, port)
    record = site.state.proxy if site.state else None
    if record and _instance(site) == record.token:  # an id that /health tells everybody
        return ok("proxy", f"healthy on port {port} (pid {listener(port) or record.process.pid})")
    holder = listener(port)
    notes = read_notes(site.directory)
    if record and notes and holder == notes.proxy and process_id(record.process.pid) == record.process:
        return problem(
            "proxy", f"it holds port {port} but does not answer", f"{site.manage()}   # a pass replaces it"
        )
    if demo := next((demo for demo in demos.running(site.config.path) if demo.port == port), None):
        return problem(
            "proxy", f"port {port} is taken by a demo", f"kill -INT {demo.pid}   # as Ctrl-C in its terminal"
        )
    who = f"{_command(str(holder))} (pid {holder})" if holder else "a program that this user cannot see"
    return problem(
        "proxy", f"port {port} is taken by {who}", f"{site.edit}   # set another proxy_port, or end that"
    )


def running_demos(site: Site) -> Iterator[Check]:
    """A demo is an installation of its own; nothing else here tells of it."""
    for demo in demos.running(site.config.path):
        yield ok("demo", f"{demo}; what stands here is not about it")


def _not_running(site: Site, port: int) -> Check:
    """Before the first pass and after ``--shutdown`` that is as it should be."""
    wanted = False
    if site.store is not None:
        with suppress(StateError):
            wanted = (want := site.store.orders().get(PROXY)) is not None and want.direction is Direction.UP
    if wanted:
        return warning("proxy", f"does not run; port {port} is free", f"{site.manage()}   # a pass starts it")
    return ok("proxy", f"not wanted now; port {port} is free")


def _instance(site: Site) -> str | None:
    """Who answers there, by the token that our proxy shows; nothing secret is sent."""
    try:
        with closing(own.connection(site.config.common, timeout=2)) as connection:
            connection.request("GET", "/health")
            return str(json.loads(connection.getresponse().read(2**20))["instance"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


# --- passes and the switch -------------------------------------------------------------------------------------------
def last_pass(site: Site, *, scheduled: bool) -> Check:
    """A pod without passes is the one thing that must not be."""
    if site.state is None:
        return ok("passes", "not known without the state file")
    up = [record for record in site.state.records.values() if record.instance_id]
    if site.state.last_pass is None:
        return ok("passes", "none yet")
    age = site.clock() - site.state.last_pass
    text = f"the last one was {duration(age)} ago" + (
        f"; {len(up)} {thing_of(site.config.common.backend)}(s) up" if up else ""
    )
    if age <= LATE_SECONDS:
        return ok("passes", text)
    if up:
        return problem("passes", text, site.manage() + ("" if scheduled else " schedule install cron"))
    return (
        warning("passes", text, f"{site.manage('doctor --as-cron')}   # why does nothing run?")
        if scheduled
        else ok("passes", text)
    )


def switch(site: Site) -> Iterator[Check]:
    """Whether each pod would end itself if nobody were left to end it; what costs nothing need not."""
    if not site.config.common.is_rented:
        return
    if site.config.common.heartbeat_seconds is None:
        text = "heartbeat_seconds is null: a pod that nobody uses or watches runs until its deadline"
        yield warning("switch", text, site.edit)
    for name, record in (site.state.records if site.state else {}).items():
        if record.instance_id:
            yield _switch_of(site, name, record)


def _switch_of(site: Site, name: str, record: Record) -> Check:
    if record.switch_at is None:
        return warning(
            "switch", f"{name}: pod {record.instance_id} has none", f"{site.manage('down')}   # then `up`"
        )
    late = site.clock() - record.switch_at
    if late > LATE_SECONDS:
        text = f"{name}: pod {record.instance_id} should have ended itself {duration(late)} ago"
        return problem("switch", text, site.manage("--shutdown"))
    return ok("switch", f"{name}: pod {record.instance_id} ends itself at {moment(record.switch_at)}")


# --- the program itself ----------------------------------------------------------------------------------------------
def packages() -> Check:
    """This Python, and whether it has the packages that were tested."""
    install = f"make -C {shlex.quote(str(HOME))} install"
    missing, other = [], []
    for name, wanted in _pins():
        try:
            if importlib.metadata.version(name) != wanted:
                other.append(f"{name} {importlib.metadata.version(name)} instead of {wanted}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    python = f"Python {sys.version_info.major}.{sys.version_info.minor} ({sys.executable})"
    if missing:
        return problem("python", f"{python} lacks {', '.join(missing)}", install)
    if other:
        return warning("python", f"{python} has {', '.join(other)}", install)
    return ok("python", f"{python} has the locked packages")


def _pins() -> Iterator[tuple[str, str]]:
    """Name and version of what must be there; lines with a marker are for some platforms only."""
    with suppress(OSError):
        text = (HOME / "requirements.lock").read_text(encoding="utf-8")
        yield from re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE)
