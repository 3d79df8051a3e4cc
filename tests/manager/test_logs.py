"""`logs`, through the front door: whose lines, which of them, and what happens when the pod changes."""

import json
import re
import signal
import subprocess
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from llmpod.lifecycle.lastwords import LastWords
from llmpod.lifecycle.store import Store
from llmpod.veil import Veil
from tests.support.forks import Forks
from tests.support.install import Install
from tests.support.process import Running
from tests.support.wait import eventually

ROW = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (container|system) +\| (.*)")


def rows(text: str) -> list[tuple[str, str, str]]:
    found = [ROW.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [(match[1], match[2], match[3]) for match in found if match]


def following(install: Install, forks: Forks, *arguments: str) -> AbstractContextManager[Running]:
    return forks.running(install.argv("logs", "-f", *arguments), env=install.environ)


def test_both_sources_in_order_of_time_each_line_marked(install: Install) -> None:
    install.passes_until("ready")
    found = rows(install.manage("logs").expect().out)
    assert [at for at, _, _ in found] == sorted(at for at, _, _ in found)
    assert {source for _, source, _ in found} == {"container", "system"}
    assert any("Starting to load model org/tiny-chat" in text for _, _, text in found)


def test_which_lines_can_be_chosen(install: Install) -> None:
    install.passes_until("ready")
    everything = rows(install.manage("logs").expect().out)
    system = rows(install.manage("logs", "--source", "system").expect().out)
    assert system == [row for row in everything if row[1] == "system"]
    assert rows(install.manage("logs", "pod", "--tail", "2").expect().out) == everything[-2:]
    assert install.manage("logs", "--tail", "0").expect().out == ""
    assert rows(install.manage("logs", "--since", "1h").expect().out) == everything
    install.sim.advance(7200)
    assert install.manage("logs", "--since", _in_the_future()).expect().out == ""


def _in_the_future() -> str:
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() + 60, UTC).isoformat()


@pytest.mark.parametrize(
    "arguments",
    [["--tail", "5001"], ["--tail", "-1"], ["--since", "yesterday"], ["--source", "kernel"]],
)
def test_bad_words_are_refused(install: Install, arguments: list[str]) -> None:
    assert "error:" in install.manage("logs", *arguments).expect(2).err


def test_a_stream_that_is_cut_is_taken_up_again(install: Install) -> None:
    install.passes_until("ready")
    everything = rows(install.manage("logs").expect().out)
    install.sim.fault("logs", "done_then_dropped", times=2)
    assert rows(install.manage("logs").expect().out) == everything


def test_without_a_pod_it_says_so_and_shows_the_last_failed_start(install: Install) -> None:
    told = install.manage("logs").expect(1)
    assert "no pod" in told.err
    words = LastWords.of(Store(install.directory / "pod_state.json").directory, Veil())
    words.keep("pod p0", "never ready", ["CUDA error: hf_abcdefghijklmnop1234"], now=1_795_000_000.0)
    told = install.manage("logs").expect(1)
    assert "pod p0, terminated at 2026-11-18T11:06:40+00:00: never ready" in told.out
    assert "CUDA error: ***" in told.out
    assert str(words.path) in told.err
    assert words.path.stat().st_mode & 0o077 == 0


def test_a_pod_that_the_provider_does_not_know_is_told(install: Install) -> None:
    status = install.passes_until("ready")
    install.console("DELETE", f"/v2/pods/{status['pod_id']}")
    assert status["pod_id"] in install.manage("logs").expect(1).err


def test_what_looks_like_a_secret_is_masked(install: Install) -> None:
    secret = "hf_abcdefghijklmnop1234"
    install.write(image=f"example.org/{secret}:v0.29.0")
    install.passes_until("ready")
    told = install.manage("logs").expect()
    assert secret not in told.out
    assert "create container example.org/***:v0.29.0" in told.out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key rpa_ABCDEFGHIJKLMNOP1234.", "key ***."),
        ("sk-llmpod-" + "0a" * 32, "***"),
        ("Authorization: Bearer abcdefghijk", "Authorization: Bearer ***"),
        ("given mysecret1 here", "given *** here"),
        ("risky task-list, half_done, alpha_beta", "risky task-list, half_done, alpha_beta"),
    ],
)
def test_masking(text: str, shown: str) -> None:
    assert Veil(["mysecret1", "", "a"]).mask(text) == shown


def test_following_shows_new_lines_and_ends_with_ctrl_c(install: Install, forks: Forks) -> None:
    pod = install.passes_until("ready")["pod_id"]
    with following(install, forks) as program:
        program.says("Started server process")
        before = program.out
        install.sim.kill(pod)
        eventually(lambda: len(rows(program.out)) > len(rows(before)), within=10)
        assert program.out.startswith(before)
        assert program.stop() == 0
        assert "Traceback" not in program.err


def test_following_goes_on_with_the_next_pod_and_repeats_no_line(install: Install, forks: Forks) -> None:
    first = install.passes_until("ready")["pod_id"]
    with following(install, forks, "--tail", "1") as program:
        program.says(f"pod {first}")
        eventually(lambda: program.out)
        install.manage("--shutdown").expect()
        program.says("waiting for the next one", within=40)
        install.manage("up").expect()
        second = install.passes_until("ready")["pod_id"]
        program.says(f"pod {second}", within=10)
        eventually(lambda: "Starting to load model" in program.out, within=10)
        whole = rows(install.manage("logs").expect().out)
        eventually(lambda: len(rows(program.out)) >= len(whole) + 1, within=10)
        assert program.stop() == 0
        assert rows(program.out)[-len(whole) :] == whole


def test_a_reader_that_leaves_is_no_failure(install: Install) -> None:
    install.passes_until("ready")
    program = subprocess.Popen(
        install.argv("logs", "-f"), env=install.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stderr is not None
    with program:
        program.stdout.readline()
        program.stdout.close()
        install.sim.kill(install.sim.alive()[0]["id"])
        assert program.wait(30) == 0
        assert b"Traceback" not in program.stderr.read()


# --- the proxy's
def test_the_proxy_log_is_shown_and_followed_over_its_rotation(install: Install, forks: Forks) -> None:
    install.proxy = True
    missing = install.manage("logs", "proxy").expect(1)
    assert "proxy.log" in missing.err
    install.passes_until("ready")
    shown = install.manage("logs", "proxy", "--tail", "1").expect().out
    assert len(shown.splitlines()) == 1
    json.loads(shown)
    log = next(install.directory.rglob("proxy.log"))
    with following(install, forks, "proxy", "--tail", "0") as program:
        eventually(lambda: _reads(program.pid, log), within=10)
        requests.get(f"http://127.0.0.1:{install.port}/v1/nothing-here", timeout=10)
        eventually(lambda: program.out, within=10)
        with log.open("a") as old:
            old.write("the last line of the old file, sk-llmpod-0123456789abcdef\nhalf")
            log.rename(log.with_suffix(".log.1"))
            log.write_text("the first line of the new file\n")
        eventually(lambda: "the first line of the new file" in program.out, within=10)
        assert "the last line of the old file, ***\n" in program.out
        assert program.stop() == 0


def _reads(pid: int, path: Path) -> bool:
    return any(link.exists() and link.samefile(path) for link in Path(f"/proc/{pid}/fd").iterdir())


def test_the_proxy_log_since_a_moment(install: Install) -> None:
    store = Store(install.directory / "pod_state.json")
    early = '{"ts":"2026-11-21T08:00:00.000Z","event":"a"}\nTraceback of a\n'
    late = '{"ts":"2026-11-21T09:00:00.000Z","event":"b"}\nTraceback of b\n'
    store.log_file.write_text(early + late)
    assert install.manage("logs", "proxy", "--since", "2026-11-21T09:30:00+01:00").expect().out == late
    assert install.manage("logs", "proxy").expect().out == early + late


def test_escape_sequences_do_not_reach_the_terminal(install: Install) -> None:
    store = Store(install.directory / "pod_state.json")
    store.log_file.write_text("\x1b[31mred\x1b[0m \x1b]0;title\x07tab\there\x08\r\n")
    assert install.manage("logs", "proxy").expect().out == "red tab\there\n"


def test_sigterm_ends_it_too(install: Install, forks: Forks) -> None:
    install.passes_until("ready")
    with following(install, forks) as program:
        program.says("pod ")
        program.signal(signal.SIGTERM)
        program.wait(within=5)
