"""Local commands as machines, with real processes: nothing of them is lost, and nothing of them is left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from llmpod.backends import process_warden
from llmpod.backends.local_port import HOST
from llmpod.backends.machines import KEPT, Machines
from llmpod.errors import BadSpec, NotFound
from tests.backends.local import KEY, STAY, Local, local
from tests.support import procfs
from tests.support.wait import eventually

DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
FAMILY = f"""
import os, signal, subprocess, sys
inner = "import os, signal; {DEAF}; os.write(1, b'child' + bytes([10])); signal.pause()"
subprocess.Popen([sys.executable, "-c", inner])
subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
subprocess.Popen([sys.executable, "-c", inner], env={{}})
signal.pause()
"""


@pytest.fixture
def here(state_dir: Path) -> Iterator[Local]:
    with local(state_dir) as made:
        yield made


def test_a_machine_runs_until_it_is_ended(here: Local) -> None:
    backend = here.python(STAY)
    made = here.create(backend)
    assert made.base_url is not None
    assert made.base_url.startswith(f"http://{HOST}:")
    assert (made.usd_per_hour, made.digest, made.container_up) == (0.0, "d1", True)
    (seen,) = here.listed(backend)
    assert seen == made
    here.said(backend, made.id, "up")
    assert backend.destroy(made.id)
    eventually(lambda: here.listed(backend) == (), within=20)
    assert not backend.destroy("llmpod-never-was")


def test_what_is_being_ended_politely_can_be_ended_at_once(here: Local) -> None:
    backend = here.python(f"import signal; {DEAF}; print('up', flush=True); signal.pause()", stop_seconds=600)
    made, other = here.create(backend), here.create(backend)
    for machine in (made, other):
        here.said(backend, machine.id, "up")
    assert backend.destroy(made.id)
    backend.hurry()
    eventually(lambda: here.looks(backend, made.id) == "", within=30)
    assert here.looks(backend, other.id) == "running", "nobody ordered its end"
    assert backend.destroy(other.id)
    backend.hurry()
    eventually(lambda: here.listed(backend) == (), within=30)


def test_arguments_are_words_whatever_is_in_them(here: Local) -> None:
    odd = ["a b", "$(touch x)", "`id`", "'; exit", '"', "\\", "*", "é\n", ""]
    code = "import sys, json; print(json.dumps(sys.argv[1:-4]), flush=True)"
    backend = here.backend(sys.executable, "-c", code, *odd)
    made = here.create(backend)
    here.said(backend, made.id, json.dumps(odd))


def test_a_crash_is_seen_at_once_with_its_last_words(here: Local) -> None:
    backend = here.python("import sys; print('CUDA out of memory'); sys.exit(3)")
    made = here.create(backend)
    eventually(lambda: here.looks(backend, made.id) == "exited", within=20)
    (seen,) = here.listed(backend)
    assert "exit code 3" in seen.detail
    assert "CUDA out of memory" in seen.detail
    backend.destroy(made.id)
    assert here.listed(backend) == ()
    assert backend.tail(made.id, 5) == ["CUDA out of memory"], "the log outlives the machine"


def test_one_that_is_killed_says_by_what(here: Local) -> None:
    backend = here.python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    made = here.create(backend)
    eventually(lambda: here.looks(backend, made.id) == "exited", within=20)
    assert "SIGSEGV" in here.listed(backend)[0].detail


def test_the_whole_family_ends_also_what_is_deaf_or_went_its_own_way(here: Local) -> None:
    backend = here.python(FAMILY, stop_seconds=0.3)
    made = here.create(backend)
    eventually(lambda: backend.tail(made.id, 9) == ["child"] * 3, within=30)
    below = {p.pid for p in procfs.descendants(os.getpid()) if "signal.pause" in p.command}
    assert len(below) == 4
    eventually(lambda: backend.destroy(made.id) and not here.listed(backend), within=10)
    eventually(lambda: not any(procfs.read(pid) for pid in below))


TIDY = """
import os, signal, sys, time
end, held = os.pipe()
if os.fork() == 0:
    os.close(held)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.read(end, 1)
    time.sleep(0.3)  # its work
    open(sys.argv[1], "w").close()
    sys.exit()
print("up", flush=True)
signal.pause()
"""


def test_who_is_left_behind_may_tidy_up(here: Local) -> None:
    """As Python's tracker of shared memory does, once the others have ended."""
    backend = here.backend(sys.executable, "-c", TIDY, str(here.directory / "tidied"))
    made = here.create(backend)
    here.said(backend, made.id, "up")
    backend.destroy(made.id)
    eventually(lambda: not here.listed(backend), within=20)
    assert (here.directory / "tidied").exists()


def test_without_its_warden_the_rest_is_broken_and_can_be_ended(here: Local) -> None:
    backend = here.python(FAMILY)
    made = here.create(backend)
    eventually(lambda: backend.tail(made.id, 9) == ["child"] * 3, within=30)
    pid = json.loads((here.directory / "machines" / made.id / "warden.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: here.looks(backend, made.id) == "broken")
    eventually(lambda: backend.destroy(made.id) and not here.listed(backend), within=20)


def test_it_ends_itself_at_its_deadline(here: Local) -> None:
    backend = here.python(STAY)
    made = here.create(backend, seconds=1.0)
    assert made.switch_at is not None
    eventually(lambda: here.looks(backend, made.id) == "exited", within=20)
    assert "SIGTERM" in here.listed(backend)[0].detail


def test_a_machine_of_another_boot_is_over(here: Local) -> None:
    backend = here.python(STAY)
    made = here.create(backend)
    eventually(lambda: backend.destroy(made.id) and not here.listed(backend), within=20)
    home = here.directory / "machines" / made.id
    for name in ("ended", "exit.json"):
        (home / name).unlink()
    (seen,) = here.listed(backend)
    assert "restarted" in seen.detail
    assert seen.observed == "exited"


def test_an_intent_alone_is_no_machine(here: Local) -> None:
    """The manager was killed before it could start anything."""
    Machines(here.directory / "machines").begin(f"{here.mark}x", {"argv": ["true"], "port": 1})
    assert here.listed(here.backend("true")) == ()


def test_a_machine_whose_directory_is_gone_is_found_by_its_mark(here: Local) -> None:
    backend = here.python(STAY)
    made = here.create(backend)
    (here.directory / "machines").rename(here.directory / "elsewhere")
    (seen,) = here.listed(backend)
    assert (seen.id, seen.base_url) == (made.id, made.base_url)
    backend.destroy(made.id)
    eventually(lambda: here.listed(backend) == (), within=20)


def test_the_key_is_in_the_environment_and_in_no_argument(here: Local) -> None:
    code = (
        "import os, signal; print(os.environ['LLAMA_API_KEY'], os.environ.get('RUNPOD_API_KEY'), flush=True)"
    )
    here.environ["RUNPOD_API_KEY"] = "rpa_bait"
    backend = here.python(code + "; signal.pause()", env={"MORE": "x"})
    made = here.create(backend)
    here.said(backend, made.id, f"{KEY} None")
    assert not any(KEY in p.command for p in procfs.descendants(os.getpid()))
    for path in (here.directory / "machines" / made.id).iterdir():
        assert path.name == "log" or KEY not in path.read_text()


@pytest.mark.parametrize("settings", [{}, {"cwd": "nowhere"}])
def test_what_cannot_be_started_is_said_and_not_tried(here: Local, settings: dict[str, str]) -> None:
    plain = here.directory / "plain.txt"
    plain.write_text("no program")
    plain.chmod(0o700)
    with pytest.raises(BadSpec, match="no program 'no-such-program'"):
        here.create(here.backend("no-such-program"))
    with pytest.raises(BadSpec, match="cannot be executed: Exec format error"):
        here.create(here.backend("./plain.txt"))
    with pytest.raises(BadSpec, match="there is no directory"):
        here.create(here.backend("true", cwd=here.directory / "no"))
    assert here.listed(here.backend("true")) == ()


def test_the_log_is_bounded(here: Local) -> None:
    code = (
        "import sys, signal\nfor n in range(600): sys.stdout.write('x' * 32767 + '\\n')\n"
        "print('over', flush=True); signal.pause()"
    )
    backend = here.python(code)
    made = here.create(backend)
    here.said(backend, made.id, "over")
    logs = [path.stat().st_size for path in (here.directory / "machines" / made.id).glob("log*")]
    assert len(logs) == 2
    assert sum(logs) <= 2 * process_warden.LOG_BYTES
    assert len(backend.tail(made.id, 3)) == 3


def test_what_a_server_writes_cannot_drive_the_terminal(here: Local) -> None:
    backend = here.python("print('a\\x1b]0;evil\\x07\\x1b[2Jb\\r\\u202ec', flush=True)")
    made = here.create(backend)
    eventually(lambda: here.looks(backend, made.id) == "exited", within=20)
    assert "\x1b" not in here.listed(backend)[0].detail
    assert "\u202e" not in "".join(backend.tail(made.id, 5))


def test_old_directories_go_and_names_stay_inside(here: Local) -> None:
    backend = here.python("pass")

    def over(name: str) -> bool:
        return here.looks(backend, name) == "exited"

    for _ in range(KEPT + 3):
        made = here.create(backend)
        eventually(partial(over, made.id), within=20)
        backend.destroy(made.id)
    assert len(list((here.directory / "machines").iterdir())) <= KEPT + 1
    for name in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(NotFound):
            backend.destroy(name)


def test_a_start_and_an_end_take_no_time(here: Local) -> None:
    """A pass is short: the end of a deaf server is its warden's business."""
    backend = here.python(
        f"import signal; {DEAF}; print('deaf', flush=True); signal.pause()", stop_seconds=60
    )
    made = here.create(backend)
    here.said(backend, made.id, "deaf")
    started = time.monotonic()
    backend.destroy(made.id)
    assert time.monotonic() - started < 5
    (seen,) = here.listed(backend)
    assert seen.observed == "running"
    _kill_group(here, made.id)


def _kill_group(here: Local, name: str) -> None:
    pid = json.loads((here.directory / "machines" / name / "warden.json").read_text())["pid"]
    os.killpg(pid, signal.SIGKILL)


def test_the_creator_may_die_and_the_machine_goes_on(here: Local) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.backends.local import Local, STAY\n"
        "here = Local(Path(sys.argv[1]), {}, mark=sys.argv[2])\nhere.create(here.python(STAY))\nimport os\nos._exit(9)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code.replace(", STAY", "").replace("STAY", repr(STAY)),
            str(here.directory),
            here.mark,
        ],
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 9
    backend = here.python(STAY)
    (seen,) = here.listed(backend)
    here.said(backend, seen.id, "up")
    assert seen.observed == "running"
