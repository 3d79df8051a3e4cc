"""A real SLURM of one node and a real SSH server on loopback, where their programs are there."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support import procfs
from tests.support.net import free_port
from tests.support.wait import eventually

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "munged", "sshd", "ssh", "ssh-keygen")
_CONF = """ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={home}/munge.sock
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
{plugins}
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=3
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=65536 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
_SSHD = """ListenAddress 127.0.0.1:{port}
HostKey {home}/host
PidFile {home}/sshd.pid
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
"""


@dataclass(frozen=True)
class Site:
    """A running cluster: its configuration file, and what a node needs for its tunnel."""

    conf: Path
    ssh_port: int
    identity: Path
    known_hosts: Path
    controller: "subprocess.Popen[bytes]"

    def ssh_in(self, directory: Path) -> Path:
        """A directory for PATH whose `ssh` knows port, key and host, as it would from the user's own file."""
        config, place = directory / "ssh_config", directory / "bin"
        known = f"UserKnownHostsFile {self.known_hosts}\nIdentityFile {self.identity}\nIdentitiesOnly yes\n"
        config.write_text(f"Port {self.ssh_port}\n{known}")
        place.mkdir()
        (place / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        (place / "ssh").chmod(0o755)
        return place


def why_not() -> str:
    """Why it cannot run here; empty when it can."""
    if missing := [name for name in NEEDED if shutil.which(name) is None]:
        return f"not installed: {', '.join(missing)}"
    try:
        pwd.getpwnam("sshd")
    except KeyError:
        return "sshd's own user is missing"
    return "" if os.geteuid() == 0 else "needs root"


@contextmanager
def cluster() -> Iterator[Site]:
    """It, while it runs."""
    home = Path(tempfile.mkdtemp(prefix="llmpod-slurm."))
    home.chmod(0o755)
    try:
        with ExitStack() as stack:
            stack.callback(_end_of_jobs, home)
            yield _started(home, stack)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _started(home: Path, stack: ExitStack) -> Site:
    def program(*argv: str) -> "subprocess.Popen[bytes]":
        env = {**os.environ, "SLURM_CONF": str(home / "slurm.conf")}
        log = stack.enter_context((home / f"{Path(argv[0]).name}.out").open("wb"))
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        stack.callback(_stop, process)
        return process

    for name in ("munge", "state", "spool"):
        (home / name).mkdir(mode=0o700)
    (home / "munge" / "key").write_bytes(os.urandom(1024))
    (home / "munge" / "key").chmod(0o600)
    munge = ["--foreground", "--force", f"--key-file={home}/munge/key", f"--socket={home}/munge.sock"]
    munge += [
        f"--pid-file={home}/munge/pid",
        f"--log-file={home}/munged.log",
        f"--seed-file={home}/munge/seed",
    ]
    program("munged", *munge)
    eventually((home / "munge.sock").exists, within=20)
    conf = _configure(home)
    controller = program("slurmctld", "-D", "-f", str(conf))
    program("slurmd", "-D", "-f", str(conf), *_stepd())
    port = _ssh(home, program)
    eventually(lambda: "idle" in says(conf, "sinfo", "-h", "-o", "%T"), within=60, every=0.2)
    return Site(conf, port, home / "id", home / "known_hosts", controller)


def _configure(home: Path) -> Path:
    found = Path(str(shutil.which("slurmctld"))).resolve().parents[1] / "lib/x86_64-linux-gnu/slurm-wlm"
    text = _CONF.format(
        home=home,
        host=socket.gethostname().partition(".")[0],
        controller=free_port(),
        daemon=free_port(),
        plugins=f"PluginDir={found}" if found.is_dir() else "",
    )
    conf = home / "slurm.conf"
    conf.write_text(text)
    return conf


def _stepd() -> list[str]:
    """Where slurmstepd is, when that is not where the package has it."""
    found = shutil.which("slurmstepd")
    return ["-d", found] if found else []


def _ssh(home: Path, program: object) -> int:
    port = free_port()
    for name in ("host", "id"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
        subprocess.run(argv, check=True, capture_output=True)
    shutil.copy(home / "id.pub", home / "authorized_keys")
    public = " ".join((home / "host.pub").read_text().split()[:2])
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    (home / "sshd_config").write_text(_SSHD.format(home=home, port=port))
    Path("/run/sshd").mkdir(exist_ok=True)
    assert callable(program)
    program(str(shutil.which("sshd")), "-D", "-e", "-f", str(home / "sshd_config"))
    return port


def says(conf: Path, *argv: str) -> str:
    """What one of SLURM's commands prints."""
    env = {**os.environ, "SLURM_CONF": str(conf)}
    done = subprocess.run(argv, env=env, check=False, capture_output=True, text=True, timeout=20)
    return done.stdout


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_of_jobs(home: Path) -> None:
    """slurmstepd outlives slurmd while a job of it does; ours carry our configuration in their environment."""
    mark = f"SLURM_CONF={home}".encode()
    for process in procfs.descendants(os.getpid()):
        with suppress(OSError):
            if mark in Path(f"/proc/{process.pid}/environ").read_bytes():
                process.kill()
