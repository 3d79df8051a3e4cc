"""`connect`: what it prints is true, and what it writes keeps what was there."""

import json
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from llmpod.cli.yamltext import with_item, with_keys
from llmpod.errors import ConfigError
from tests.support.install import Install
from tests.support.process import Finished, run

CLIENTS = ["continue", "kilo", "cline", "codegpt", "aider", "openai", "curl"]


def connect(install: Install, *arguments: str) -> Finished:
    return install.manage("connect", *arguments)


@pytest.mark.parametrize("client", CLIENTS)
def test_everyone_is_told_address_model_and_key(install: Install, client: str) -> None:
    install.write(max_model_len=12345)
    told = connect(install, client).expect()
    assert f"http://localhost:{install.port}/v1" in told.out
    assert "org/tiny-chat" in told.out
    assert ("llmpod" in told.out) or client == "curl"
    assert ("12345" in told.out) == (client not in ("openai", "curl"))
    assert "does not run" in told.err


def test_the_served_name_and_https_count(install: Install) -> None:
    install.write(
        model="org/x@rev", served_model_name="mine", use_https=True, ssl_cert="c.pem", ssl_key="k.pem"
    )
    told = connect(install, "openai").expect().out
    assert f"https://localhost:{install.port}/v1" in told
    assert "mine" in told
    assert "org/x" not in told


def test_an_unknown_client_is_refused_with_the_list(install: Install) -> None:
    told = connect(install, "emacs").expect(2).err
    assert all(name in told for name in CLIENTS)


def test_without_a_client_it_lists_them(install: Install) -> None:
    told = connect(install).expect().out
    assert f"http://localhost:{install.port}/v1 with the model org/tiny-chat" in told
    assert all(f"\n  {name}" in told for name in CLIENTS)
    assert "One of: continue" in connect(install, "--write").expect(1).err


def test_what_is_printed_for_curl_and_the_sdk_works(install: Install) -> None:
    install.proxy = True
    install.passes_until("ready")
    told = connect(install, "curl").expect()
    assert told.err == ""
    command = told.out.replace("\\\n", " ")
    answer = run(["curl", "-sS", *shlex.split(command)[1:]], env=install.env).expect().out
    assert json.loads(answer)["choices"][0]["message"]["content"]
    exports = connect(install, "openai").expect().out
    script = f"{exports}\npython -c 'import openai; print(openai.OpenAI().models.list().data[0].id)'"
    done = subprocess.run(["bash", "-c", script], env=install.env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "org/tiny-chat"


# --- writing
def home(install: Install) -> Path:
    return Path(install.env["HOME"])


def test_a_new_continue_file(install: Install) -> None:
    path = home(install) / ".continue" / "config.yaml"
    connect(install, "continue", "--write").expect()
    text = path.read_text()
    assert text.startswith("name: Local Assistant\nversion: 1.0.0\nschema: v1\nmodels:\n  # llmpod begin\n")
    assert f'    apiBase: "http://localhost:{install.port}/v1"\n' in text
    assert not path.with_name("config.yaml.bak").exists()
    assert "already" in connect(install, "continue", "--write").expect().out
    assert path.read_text() == text


def test_an_old_continue_file_keeps_everything_else(install: Install) -> None:
    path = home(install) / ".continue" / "config.yaml"
    path.parent.mkdir()
    old = 'name: mine # ü\nmodels:\n- name: gpt\n  provider: openai\n\n# end\nrules: ["a: b"]\n'
    path.write_text(old)
    path.chmod(0o640)
    connect(install, "continue", "--write").expect()
    lines = path.read_text().splitlines(keepends=True)
    begin, end = lines.index("# llmpod begin\n"), lines.index("# llmpod end\n")
    assert "".join(lines[:begin] + lines[end + 1 :]) == old
    assert lines[begin + 1].startswith("- name: ")
    assert path.with_name("config.yaml.bak").read_text() == old
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    install.write(proxy_port=install.port + 1)
    connect(install, "continue", "--write").expect()
    assert path.read_text().count("llmpod begin") == 1
    assert f"{install.port + 1}/v1" in path.read_text()
    assert f"{install.port}/v1" not in path.read_text()


def test_aider_keeps_its_own_key_and_other_settings(install: Install) -> None:
    path = home(install) / ".aider.conf.yml"
    path.write_text("# mine\nmodel: gpt-4o # best\nopenai-api-key: sk-mine\ndark-mode: true\nread: [A.md]")
    connect(install, "aider", "--write").expect()
    assert path.read_text().splitlines() == [
        "# mine",
        'model: "openai/org/tiny-chat"',
        "openai-api-key: sk-mine",
        "dark-mode: true",
        "read: [A.md]",
        f'openai-api-base: "http://localhost:{install.port}/v1"',
    ]


def test_a_link_stays_a_link(install: Install, tmp_path: Path) -> None:
    real = tmp_path / "aider.yml"
    real.write_text("dark-mode: true\n")
    path = home(install) / ".aider.conf.yml"
    path.symlink_to(real)
    connect(install, "aider", "--write").expect()
    assert path.is_symlink()
    assert "openai-api-base" in real.read_text()


@pytest.mark.parametrize("client", ["kilo", "cline", "codegpt", "openai", "curl"])
def test_what_has_no_file_is_not_written(install: Install, client: str) -> None:
    before = sorted(home(install).rglob("*"))
    assert f"connect {client}" in connect(install, client, "--write").expect(78).err
    assert sorted(home(install).rglob("*")) == before


def test_a_file_of_another_form_is_left_as_it_is(install: Install) -> None:
    path = home(install) / ".continue" / "config.yaml"
    path.parent.mkdir()
    path.write_text("models: &all [ {name: a} ]\n")
    told = connect(install, "continue", "--write").expect(78)
    assert "left as it is" in told.err
    assert path.read_text() == "models: &all [ {name: a} ]\n"
    assert [left.name for left in path.parent.iterdir()] == ["config.yaml"]


# --- the text
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "h: 1\nmodels:\n  # llmpod begin\n  - a\n  # llmpod end\n"),
        ("x: 1", "x: 1\nmodels:\n  # llmpod begin\n  - a\n  # llmpod end\n"),
        ("models: [] # none\n", "models:\n  # llmpod begin\n  - a\n  # llmpod end\n"),
        ("models:\nx: 1\n", "models:\n  # llmpod begin\n  - a\n  # llmpod end\nx: 1\n"),
        (
            "models:\n\n    # c\n    - b\n",
            "models:\n    # llmpod begin\n    - a\n    # llmpod end\n\n    # c\n    - b\n",
        ),
    ],
)
def test_an_item_goes_where_the_list_is(old: str, new: str) -> None:
    assert with_item(old, "models", ["- a"], head=["h: 1"]) == new
    assert with_item(new, "models", ["- a"], head=["h: 1"]) == new


@pytest.mark.parametrize(
    "old",
    [
        "{models: []}",
        "models: {a: 1}\n",
        "models: *other\n",
        "models:\n  a: 1\n",
        "models: []\nmodels: []\n",
        "'models': []\n",
        "a: 1\n---\nb: 2\n",
        "models:\n\t- a\n",
        "models:\n  # llmpod begin\n  - a\n",
    ],
)
def test_a_list_of_another_form_is_refused(old: str) -> None:
    with pytest.raises(ConfigError):
        with_item(old, "models", ["- a"], head=["h: 1"])


@pytest.mark.parametrize("value", ["|\n  text", ">-", "{a: 1}", "[a]", "*x", "&x y", '"open', "!!str x"])
def test_a_value_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(ConfigError):
        with_keys(f"model: {value}\n", {"model": "new"})


@pytest.mark.parametrize("value", ["gpt-4o", "'gpt'", '"gpt"', "a b", "gpt # c", "openai/x:y"])
def test_a_plain_value_is_replaced(value: str) -> None:
    assert with_keys(f"a: 1\nmodel: {value}\n", {"model": "new"}) == 'a: 1\nmodel: "new"\n'
