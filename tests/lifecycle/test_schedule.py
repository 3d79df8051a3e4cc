"""What is written for cron and systemd, and that nothing else in a crontab moves by a byte."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmpod.errors import ConfigError, StateError
from llmpod.lifecycle import crontab, schedule
from llmpod.lifecycle.crontab import Crontab, Entry
from tests.lifecycle.jobs import ID, job

OTHER = "fedc9876"


def entry_of(block: str) -> Entry:
    return next(iter(crontab.entries(block)))


# --- the lines for cron
def test_the_block_runs_the_watchdog_every_five_minutes_by_absolute_paths() -> None:
    block = schedule.cron_block(job())
    begin, line, end = block.splitlines()
    assert begin.startswith(f"# BEGIN llmpod {ID}")
    assert end == f"# END llmpod {ID}"
    assert line.startswith("*/5 * * * * ")
    words = entry_of(block).words
    assert words[:4] == [
        "/opt/llm pod/.venv/bin/python",
        "/opt/llm pod/manage_pod.py",
        "--config",
        "/home/ann/50% off's/pod_config.json",
    ]
    assert words[4:] == ["--log-file", "/home/ann/.local/state/llmpod/0123abcd.log", "pass", "--for", "270"]


def test_every_percent_is_escaped_for_cron() -> None:
    line = schedule.cron_block(job()).splitlines()[1]
    assert "50\\% off" in line
    assert not entry_of(line).is_cut


def test_a_nightly_shutdown_is_a_line_of_its_own() -> None:
    assert "--shutdown" not in schedule.cron_block(job())
    lines = schedule.cron_block(job(shutdown_at=(23, 5))).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("5 23 * * * ")
    assert lines[2].endswith(" --shutdown")


def test_a_key_file_is_named_for_a_job_that_would_not_find_it() -> None:
    words = entry_of(schedule.cron_block(job(key_file=Path("/secret place/key")))).words
    assert words[0] == "RUNPOD_API_KEY_FILE=/secret place/key"


@given(st.text(st.characters(blacklist_categories=["C"], blacklist_characters="/\\\u2028\u2029"), min_size=1))
@example("a'b\"c $HOME `id` %d; & > x")
@example("~ *")
def test_any_name_of_a_directory_reaches_the_program_as_it_is(name: str) -> None:
    config = Path("/") / f"x{name}" / "pod_config.json"
    shown = ["sh", "-c", entry_of(schedule.cron_block(job(python=Path("/bin/echo"), config=config))).shell]
    said = subprocess.run(
        shown, capture_output=True, check=True, env={"PATH": "/bin:/usr/bin"}
    ).stdout.decode()
    assert f"--config {config} --log-file" in said


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x00b", "a\tb"])
def test_what_no_crontab_can_carry_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="no crontab or unit can carry"):
        job(config=Path("/") / name / "pod_config.json")


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="not an absolute path"):
        job(config=Path("pod_config.json"))


@pytest.mark.parametrize(("text", "time"), [("00:00", (0, 0)), ("23:59", (23, 59)), ("7:05", (7, 5))])
def test_a_time_of_day(text: str, time: tuple[int, int]) -> None:
    assert schedule.clock_time(text) == time


@pytest.mark.parametrize("text", ["24:00", "12:60", "noon", "12", "-1:00", "1:2"])
def test_no_time_of_day(text: str) -> None:
    with pytest.raises(ValueError, match="not a time of day"):
        schedule.clock_time(text)


# --- the table
TABLE = "MAILTO=ann\n# mine\n@daily  backup \\%x\n"
LINES = st.lists(st.text(st.characters(blacklist_characters="\n"), max_size=30), max_size=6).map(
    lambda lines: "".join(line + "\n" for line in lines)
)


@given(LINES, LINES)
def test_foreign_lines_stay_as_they_are_whatever_they_are(above: str, below: str) -> None:
    old, new = schedule.cron_block(job()), schedule.cron_block(job(shutdown_at=(0, 0)))
    table = above + old + below
    assert crontab.with_block(table, ID, new) == above + new + below
    assert crontab.without_block(table, ID) == above + below
    assert crontab.block_of(table, ID) == old
    assert crontab.with_block(table, ID, old) == table


def test_a_first_block_is_added_at_the_end_and_a_missing_line_end_is_made_up() -> None:
    block = schedule.cron_block(job())
    assert crontab.with_block("", ID, block) == block
    assert crontab.with_block(TABLE, ID, block) == TABLE + block
    assert crontab.with_block(TABLE.rstrip("\n"), ID, block) == TABLE + block


def test_two_installations_live_side_by_side() -> None:
    mine, theirs = schedule.cron_block(job()), schedule.cron_block(job(install_id=OTHER))
    both = crontab.with_block(crontab.with_block(TABLE, ID, mine), OTHER, theirs)
    assert crontab.without_block(both, ID) == TABLE + theirs
    assert crontab.without_block(both, OTHER) == TABLE + mine
    assert [entry.block for entry in crontab.entries(both)] == [ID, OTHER]


@pytest.mark.parametrize(
    "damaged",
    [
        f"# BEGIN llmpod {ID}\n* * * * * mine\n",
        f"* * * * * mine\n# END llmpod {ID}\n",
        f"# END llmpod {ID}\n# BEGIN llmpod {ID}\n",
        f"# BEGIN llmpod {ID}\n# BEGIN llmpod {ID}\n# END llmpod {ID}\n",
    ],
)
def test_a_lone_marker_is_never_guessed_about(damaged: str) -> None:
    with pytest.raises(StateError, match="damaged"):
        crontab.with_block(damaged, ID, "x\n")
    with pytest.raises(StateError, match="damaged"):
        crontab.without_block(damaged, ID)
    with pytest.raises(StateError, match="damaged"):
        crontab.block_of(damaged, ID)


# --- reading what people wrote
def test_lines_by_hand_are_read_with_what_stands_above_them() -> None:
    table = (
        "PATH = /usr/local/bin:/usr/bin\n"
        "HOME='/srv/my home'\n"
        "# */5 * * * * python3 /old/manage_pod.py\n"
        "*/5 * * * * cd /srv && python3 manage_pod.py --config=pod.json >> $HOME/l.log 2>&1\n"
        "EMPTY=\n"
        "@reboot '/srv/a b/manage_pod.py' --shutdown > /dev/null 2>/tmp/errors\n"
        "0 0 * * * rm manage_pod.pyc\n"
    )
    first, second = crontab.entries(table)
    assert (first.number, first.block) == (4, None)
    assert first.environ == {"PATH": "/usr/local/bin:/usr/bin", "HOME": "/srv/my home"}
    assert (first.script, first.config, first.log_file) == ("manage_pod.py", "pod.json", "$HOME/l.log")
    assert not first.is_shutdown
    assert second.environ["EMPTY"] == ""
    assert (second.script, second.config, second.log_file) == ("/srv/a b/manage_pod.py", None, "/dev/null")
    assert second.is_shutdown


def test_an_unescaped_percent_cuts_the_command() -> None:
    entry = Entry(1, "python3 /x/manage_pod.py >> /log.$(date +%H) 2>&1")
    assert entry.is_cut
    assert entry.shell == "python3 /x/manage_pod.py >> /log.$(date +"
    assert entry.words  # a quote or bracket without its partner is no reason to give up


def test_another_command_keeps_everything_around_the_program() -> None:
    entry = Entry(1, "cd / && K=1 python3 '/a b/manage_pod.py' --config /c --shutdown >> /log 2>&1")
    assert (
        entry.instead("doctor") == "cd / && K=1 python3 '/a b/manage_pod.py' doctor --config /c >> /log 2>&1"
    )


def test_another_command_stands_instead_of_the_pass() -> None:
    assert entry_of(schedule.cron_block(job())).instead("doctor").endswith("0123abcd.log")


# --- the program crontab
def fake_crontab(directory: Path, body: str) -> dict[str, str]:
    program = directory / "crontab"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"PATH": f"{directory}:/usr/bin:/bin"}


@pytest.mark.parametrize(
    "words", ["no crontab for ann", "crontab: can't open 'ann': No such file or directory"]
)
def test_no_table_yet_is_an_empty_one(tmp_path: Path, words: str) -> None:
    assert Crontab(fake_crontab(tmp_path, f'echo "{words}" >&2; exit 1')).read() == ""


def test_a_table_that_cannot_be_read_is_never_written(tmp_path: Path) -> None:
    environ = fake_crontab(tmp_path, 'echo "You (ann) are not allowed to use this program" >&2; exit 1')
    with pytest.raises(StateError, match="not allowed"):
        Crontab(environ).read()


def test_bytes_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_bytes(b"* * * * * echo \xff\xfe\n")
    environ = fake_crontab(tmp_path, f'case $1 in -l) cat "{table}";; -) cat > "{table}";; esac')
    text = Crontab(environ).read()
    assert text is not None
    Crontab(environ).write(crontab.with_block(text, ID, schedule.cron_block(job())))
    assert table.read_bytes().startswith(b"* * * * * echo \xff\xfe\n# BEGIN")


def test_a_refusal_and_a_loss_are_said(tmp_path: Path) -> None:
    environ = fake_crontab(tmp_path, 'cat >/dev/null; echo "bad minute" >&2; exit 1')
    with pytest.raises(StateError, match="bad minute"):
        Crontab(environ).write("x\n")
    environ = fake_crontab(tmp_path, "test $1 = - && cat >/dev/null; echo another")
    with pytest.raises(StateError, match="something else changes it"):
        Crontab(environ).write("x\n")


def test_without_the_program_there_is_no_table(tmp_path: Path) -> None:
    assert Crontab({"PATH": str(tmp_path)}).read() is None
