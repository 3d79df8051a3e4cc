"""SLURM jobs: the script that runs whatever the user wrote, what the commands' answers mean, and a real cluster."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmpod.backends.machines import Machines
from llmpod.backends.slurm import Done, SlurmJobs
from llmpod.backends.slurm_script import quoted, script, tunnel
from llmpod.config import SlurmSection
from llmpod.errors import BadSpec, CreateUnknown, ProviderUnavailable
from llmpod.model import Instance, Offer, Spec

OFFER = Offer("slurm", usd_per_hour=0.0)
SPEC = Spec("org/m", "org/m", "", (), 0, 0, (OFFER,), digest="d1")
NAME = "llmpod-0-1-2"


def section(**more: Any) -> SlurmSection:
    return SlurmSection(**{"command": ("serve",), "loopback_user": "me", "loopback_host": "front", **more})


class Commands:
    """SLURM's commands: the same answer each time, and what they were asked."""

    def __init__(self, *answers: Done | Exception) -> None:
        self.asked: list[tuple[list[str], str, dict[str, str]]] = []
        self._answers = list(answers)

    def __call__(self, argv: Sequence[str], text: str, environ: Mapping[str, str]) -> Done:
        self.asked.append((list(argv), text, dict(environ)))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def backend(directory: Path, commands: Commands, **more: Any) -> SlurmJobs:
    return SlurmJobs(
        section(**more), Machines(directory / "m"), cwd=directory, environ={}, run=commands, clock=lambda: 1e6
    )


def create(jobs: SlurmJobs) -> Instance:
    return jobs.create(SPEC, OFFER, NAME, {"VLLM_API_KEY": "sk-bait"}, deadline=1e6 + 3601)


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=4))
def test_a_shell_reads_back_every_word_as_it_was(words: list[str]) -> None:
    assert shlex.split(quoted(words)) == words
    code = "import sys; sys.stdout.buffer.write(b'\\0'.join(map(__import__('os').fsencode, sys.argv[1:])))"
    line = f"{quoted([sys.executable, '-I', '-S', '-c', code])} {quoted(words)}"
    done = subprocess.run(["/bin/bash"], input=line.encode(), capture_output=True, check=True)
    assert done.stdout == b"\0".join(word.encode() for word in words)


def test_the_script_is_one_that_bash_reads() -> None:
    text = script(section(command=("a 'b' $(c)", "--x={port}")), port=8101, node_port=20001)
    subprocess.run(["/bin/bash", "-n"], input=text, text=True, check=True)
    assert shlex.quote("--x=20001") in text
    words = tunnel(section(identity_file="/k", known_hosts="/h"), port=8101, node_port=20001)
    assert words[words.index("-R") + 1] == "127.0.0.1:8101:127.0.0.1:20001"
    for option in ("ExitOnForwardFailure=yes", "StrictHostKeyChecking=yes", "ServerAliveInterval=15"):
        assert option in words
    assert words[-2:] == ("--", "me@front")


def test_jobs_of_two_models_that_wait_have_two_ports(tmp_path: Path) -> None:
    """Their tunnels come up hours later; until then nobody listens there."""
    made = []
    for model in ("machines-a", "machines-b"):
        machines, commands = Machines(tmp_path / model), Commands(Done(0, "17\n", ""))
        jobs = SlurmJobs(section(), machines, cwd=tmp_path, environ={}, run=commands, clock=lambda: 1e6)
        made.append(create(jobs).base_url)
    assert made[0] != made[1]
    Machines(tmp_path / "machines-a").end(NAME)
    assert Machines(tmp_path / "machines-b").promised() == {int(str(made[1]).rpartition(":")[2])}


def test_an_srun_line_is_split_and_never_run(tmp_path: Path) -> None:
    commands = Commands(Done(0, "17\n", ""))
    made = create(
        backend(tmp_path, commands, srun="srun --mem=30G '--comment=a b; rm -rf /'", options=("-p", "gpu"))
    )
    argv, text, environ = commands.asked[0]
    assert argv[0] == "sbatch"
    assert argv[-4:] == ["--mem=30G", "--comment=a b; rm -rf /", "-p", "gpu"]
    for option in (f"--job-name={NAME}", "--dependency=singleton", "--time=61", "--no-requeue"):
        assert option in argv
    assert environ["VLLM_API_KEY"] == "sk-bait"
    assert "sk-bait" not in text + " ".join(argv)
    assert made.observed == "starting"
    for line in ("srun python evil.py", "srun --mem=1G bash", "srun -p gpu bash -c x"):
        with pytest.raises(ValidationError, match="is none"):
            section(srun=line)
    for option in (
        "--job-name=x",
        "-Jx",
        "--array=1-9",
        "--wrap=x",
        "-d",
        "--arr=1-9",
        "-Mother",
        "--clus=other",
    ):
        with pytest.raises(ValidationError, match="set by llmpod"):
            section(options=(option,))
    assert section(options=("--wait-all-nodes=1",)).job_options
    with pytest.raises(ValidationError, match="cannot be split"):
        section(srun="srun 'open")
    with pytest.raises(ValidationError):
        section(loopback_user="-oProxyCommand=x")


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (TimeoutError(), CreateUnknown, "slurmctld"),
        (FileNotFoundError(2, "No such file"), BadSpec, "login node"),
        (Done(1, "", "sbatch: error: Socket timed out on send/recv operation"), CreateUnknown, "timed out"),
        (Done(1, "", "error: Unable to contact slurm controller"), CreateUnknown, "contact"),
        (
            Done(1, "", "sbatch: error: Invalid generic resource (gres) specification"),
            BadSpec,
            "slurm.options",
        ),
    ],
)
def test_the_outcomes_of_a_submission(
    tmp_path: Path, answer: Done | Exception, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as caught:
        create(backend(tmp_path, Commands(answer)))
    assert type(caught.value) is error
    assert text in str(caught.value)


def test_a_dead_controller_says_nothing_about_jobs(tmp_path: Path) -> None:
    for answer in (TimeoutError(), Done(1, "", "slurm_load_jobs error"), FileNotFoundError(2, "no squeue")):
        jobs = backend(tmp_path, Commands(answer))
        with pytest.raises(ProviderUnavailable):
            jobs.list(())
        with pytest.raises(ProviderUnavailable):
            jobs.destroy(NAME)


def test_a_pending_job_tells_its_reason_and_an_ended_one_its_state(tmp_path: Path) -> None:
    pending = Done(0, f"17|PENDING|{NAME}|Resources\n18|RUNNING|somebody-elses|None\n", "")
    commands = Commands(Done(0, "17\n", ""), pending)
    jobs = backend(tmp_path, commands)
    create(jobs)
    ours, other = jobs.list(()).instances
    assert (ours.observed, ours.container_up) == ("starting", False)
    assert "Resources" in ours.detail
    assert other.name == "somebody-elses"
    ended = backend(tmp_path, Commands(Done(0, f"17|OUT_OF_MEMORY|{NAME}|OutOfMemory\n", "")))
    assert "out_of_memory" in ended.list(()).instances[0].detail
    forgotten = backend(tmp_path, Commands(Done(0, "", "")))
    assert "forgotten" in forgotten.list(()).instances[0].detail
    assert forgotten.destroy(NAME)
    assert forgotten.list(()).instances == ()
