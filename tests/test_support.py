"""The helpers that other tests rely on can fail, each shown on a case that must make it fail."""

import base64
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support import procfs
from tests.support.canaries import Canaries
from tests.support.forks import Forks
from tests.support.isolation import isolated
from tests.support.net import free_port, listens
from tests.support.process import PYTHON, run, running
from tests.support.source import ROOT
from tests.support.wait import eventually

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and a subreaper")
SLEEPER = [PYTHON, "-c", "import time; print('up', flush=True); time.sleep(60)"]
# Prints its own pid from a process that no living parent knows, as a daemon does.
DAEMON = textwrap.dedent("""
    import subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
    print(child.pid)
""")
# Says what kind of process it is.
FORKED = textwrap.dedent("""
    import json, os, sys, time
    fds = [int(name) for name in os.listdir("/proc/self/fd")]
    told = {
        "argv": sys.argv[1:], "environ": dict(os.environ), "zone": time.tzname[0], "stdin": sys.stdin.read(),
        "leads": os.getpgid(0) == os.getsid(0) == os.getpid(), "loaded": "llmpod.cli.passes" in sys.modules,
        "fds": sorted(fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")),
    }
    print(json.dumps(told))
    print("a warning", file=sys.stderr)
    sys.exit(7)
""")


def test_eventually_returns_the_true_value() -> None:
    counter = iter(range(5))
    assert eventually(lambda: (n := next(counter)) >= 3 and n, every=0.001) == 3


def test_eventually_fails_with_the_last_value() -> None:
    pods: list[str] = []
    with pytest.raises(AssertionError, match=r"not true within 0\.01 s; last seen: \[\]"):
        eventually(lambda: pods, within=0.01)


def test_eventually_ignores_only_what_it_is_told_to() -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        eventually(lambda: 1 / 0, within=0.01, ignoring=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0, within=0.01)


def test_a_free_port_is_free_and_a_taken_one_listens() -> None:
    port = free_port()
    assert not listens(port)
    with running([PYTHON, "-m", "http.server", str(port), "--bind", "127.0.0.1"]):
        eventually(lambda: listens(port))


def test_run_reports_code_output_and_input() -> None:
    echo = "import sys; print(input()); print('oops', file=sys.stderr); sys.exit(3)"
    finished = run([PYTHON, "-c", echo], stdin="hello\n")
    assert (finished.code, finished.out, finished.err) == (3, "hello\n", "oops\n")
    with pytest.raises(AssertionError, match="oops"):
        finished.expect(0)


def test_run_ends_what_takes_too_long() -> None:
    with pytest.raises(AssertionError, match=r"still running after 0\.2 s\nup"):
        run(SLEEPER, within=0.2)


def test_running_ends_the_whole_group() -> None:
    nested = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); input()"
    with running([PYTHON, "-c", f"{nested}; import time; time.sleep(60)", *SLEEPER], stdin="\n") as program:
        program.says("up")
        grandchild = int(program.out.split()[0])
    eventually(lambda: procfs.read(grandchild) is None or not procfs.available())


def test_stop_is_what_ctrl_c_does() -> None:
    with running(SLEEPER) as program:
        program.says("up")
        assert program.stop() == -signal.SIGINT


def test_waiting_for_words_ends_with_the_program() -> None:
    with (
        running([PYTHON, "-c", "print('bye')"]) as program,
        pytest.raises(AssertionError, match="exit code 0\nbye"),
    ):
        program.says("hello")


def test_a_secret_in_the_argument_list_is_refused(env: dict[str, str], canaries: Canaries) -> None:
    with pytest.raises(AssertionError, match="RUNPOD_API_KEY stands in the argument list"):
        run(["echo", f"--key={canaries['RUNPOD_API_KEY']}"], env={**env, **canaries.values})


def test_nothing_of_the_owner_is_in_the_environment(env: dict[str, str]) -> None:
    names = run([PYTHON, "-c", "import os; print(*os.environ)"]).expect().out.split()
    assert not re.findall(r"\S*(?:KEY|TOKEN|SECRET|RUNPOD|OPENAI|PROXY)\S*", " ".join(names))
    assert Path(env["HOME"]).is_relative_to(Path(os.environ.get("TMPDIR", "/tmp")))  # noqa: S108 - pytest's own base


def test_isolation_lets_through_only_what_it_knows(tmp_path: Path) -> None:
    owner = {
        "RUNPOD_API_KEY": "rpa_1",
        "HF_TOKEN": "hf_1",
        "HTTPS_PROXY": "http://x",
        "HOME": "/root",
        "PATH": "/bin",
    }
    seen = isolated({**owner, "TZ": "UTC"}, home=tmp_path)
    assert seen.keys() == {"HOME", "PATH", "TZ"}
    assert (seen["HOME"], seen["PATH"].split(os.pathsep)[-1]) == (str(tmp_path), "/bin")


def test_state_is_private(state_dir: Path) -> None:
    assert state_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("offset", range(3))
def test_canaries_are_found_in_every_disguise(canaries: Canaries, offset: int) -> None:
    secret = canaries["HF_TOKEN"]
    header = base64.b64encode(b"x" * offset + secret.encode() + b"tail").decode()
    for text in (f"key={secret}!", f"?key={quote(secret, safe='')}", f"Basic {header}"):
        assert canaries.seen_in(text) == {"HF_TOKEN"}
    assert canaries.seen_in("nothing to see") == set()


def test_canaries_are_found_in_files(canaries: Canaries, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    leak = tmp_path / "a" / "b" / "log"
    leak.write_text(f"using {canaries['API_KEY']}")
    (tmp_path / "clean").write_text("nothing")
    assert canaries.seen_in_files(tmp_path) == {leak: {"API_KEY"}}


@linux
def test_canaries_are_found_in_processes(canaries: Canaries, env: dict[str, str]) -> None:
    with running(SLEEPER, env={**env, "HF_TOKEN": canaries["HF_TOKEN"]}) as program:
        program.says("up")
        assert canaries.seen_in_processes([program.pid], what="environ") == {program.pid: {"HF_TOKEN"}}
        assert canaries.seen_in_processes([program.pid]) == {}


@linux
def test_a_dead_orphan_is_reaped_and_a_dead_child_keeps_its_exit_code() -> None:
    child = subprocess.Popen([PYTHON, "-c", "raise SystemExit(7)"])
    orphan = int(run([PYTHON, "-c", DAEMON, "import time; time.sleep(0.2)"]).expect().out)
    eventually(lambda: procfs.read(orphan) is None)
    assert child.wait() == 7


@linux
@pytest.mark.parametrize("leak", ["child", "daemon"])
def test_a_test_that_leaves_a_process_fails(leak: str, tmp_path: Path, env: dict[str, str]) -> None:
    sleep = "import time; time.sleep(60)"
    body = {
        "child": f"keep.append(subprocess.Popen([sys.executable, '-c', {sleep!r}]))",
        "daemon": f"subprocess.run([sys.executable, '-c', {DAEMON!r}, {sleep!r}], check=True)",
    }[leak]
    test = tmp_path / "test_leak.py"
    test.write_text(
        f"import subprocess, sys\nkeep = []\ndef test_leak():\n    {body}\ndef test_next(): pass\n"
    )
    argv = [PYTHON, "-m", "pytest", "-q", "-p", "tests.support.children", "-p", "no:cacheprovider", str(test)]
    finished = run(argv, cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT)})
    assert "this test left 1 process(es) behind (ended now)" in finished.out, finished.out
    assert "2 passed, 1 error" in finished.out


def test_a_fork_is_a_process_of_its_own(forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(FORKED, encoding="utf-8")
    done = forks.run([PYTHON, script, "one", "two"], env={**env, "TZ": "Asia/Tokyo"})
    told = json.loads(done.out)
    assert (done.code, done.err, told["argv"]) == (7, "a warning\n", ["one", "two"])
    assert told["environ"] == {**env, "TZ": "Asia/Tokyo"}
    assert (told["zone"], told["leads"], told["stdin"], told["fds"]) == ("JST", True, "", [0, 1, 2])
    assert told["loaded"], "else it is no quicker than a start"


@pytest.mark.parametrize(("line", "code"), [("", 0), ("os.kill(os.getpid(), 9)", -9), ("1 / 0", 1)])
def test_a_forks_end_is_told(line: str, code: int, forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import os\n{line}\n", encoding="utf-8")
    assert forks.run([PYTHON, script], env=env).code == code


def test_a_fork_does_all_there_is_to_do_at_its_end(forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import atexit, threading, time\n"
        "atexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "print('main')\nraise SystemExit(3)\n",
        encoding="utf-8",
    )
    done = forks.run([PYTHON, script], env=env)
    assert (done.code, done.out) == (3, "main\nthread\nlast\n")


def test_a_fork_runs_where_and_on_what_it_is_told_to_and_can_be_asked_to_end(
    forks: Forks, env: dict[str, str], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, time\nprint(os.getcwd(), input(), flush=True)\ntime.sleep(60)\n", "utf-8")
    with forks.running([PYTHON, script], env=env, cwd=tmp_path, stdin="hello\n") as program:
        program.says(f"{tmp_path} hello")
        assert program.code is None
        program.signal(signal.SIGTERM)
        assert program.wait() == program.code == -signal.SIGTERM


def test_a_fork_that_takes_too_long_is_ended(forks: Forks, env: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"still running after 1 s\nup"):
        forks.run([PYTHON, script], env=env, within=1)
