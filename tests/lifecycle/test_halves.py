"""Texts of others are cut where no half of a secret can be left: a veil knows whole ones only."""

from pathlib import Path

import pytest

from llmpod.backends.machines import brief
from llmpod.errors import LlmpodError
from llmpod.lifecycle.probe import MAX_DETAIL, HttpProber
from llmpod.lifecycle.proxyproc import ProxyProcess
from llmpod.lifecycle.store import Store
from llmpod.model import Instance, Observed
from llmpod.secret import MASK, Secret
from llmpod.veil import Veil
from tests.support.net import free_port
from tests.support.rawserver import answering

SECRET = "a-secret-of-thirty-characters!"
FRONT, BACK = SECRET[:9], SECRET[-9:]  # of which none may be seen


@pytest.mark.parametrize("before", range(90, MAX_DETAIL + 10, 10))
def test_what_a_model_server_says_of_its_key(before: int) -> None:
    with answering("x" * before + SECRET + "y" * 500, status="404 Not Found") as url:
        seen = Instance("p", "n", Observed.RUNNING, base_url=url, container_up=True, key_optional=True)
        prober = HttpProber(Veil([SECRET]))
        health = prober.check(seen, Secret(SECRET, "a test"), "m", was_ready=False)
    assert "answers 404: xxx" in health.detail
    assert FRONT not in health.detail
    assert len(health.detail) <= MAX_DETAIL


def test_a_secret_that_control_characters_divide() -> None:
    with answering(f'{{"data": [{{"id": "{FRONT}\\u001b[0m{SECRET[9:]}"}}]}}') as url:
        seen = Instance("p", "n", Observed.RUNNING, base_url=url, container_up=True, key_optional=True)
        health = HttpProber(Veil([SECRET])).check(seen, None, "m", was_ready=False)
    assert health.detail == f"it serves {MASK}, not m"


@pytest.mark.parametrize("after", range(560, 600, 13))
def test_what_a_proxy_says_that_does_not_start(tmp_path: Path, after: int) -> None:
    script = tmp_path / "broken.py"
    script.write_text(f"import sys\nsys.exit({SECRET!r} + 'y' * {after})\n")
    store = Store(tmp_path / "pod_state.json", veil=Veil([SECRET]))
    proxy = ProxyProcess(store, script, {"PATH": "/usr/bin:/bin", "PORT": str(free_port())})
    with pytest.raises(LlmpodError, match="ended at once") as caught:
        proxy.ensure(None, save=lambda _: None)
    assert "y" * after in caught.value.message
    assert BACK not in caught.value.message


@pytest.mark.parametrize("after", range(360, 410, 7))
def test_the_last_lines_of_a_machine(after: int) -> None:
    """Nothing of its backend knows secrets, so whoever masks the sentence gets whole words."""
    words = ("z " * after)[:after]
    said = Veil([SECRET]).mask(brief(["begun", f"with --api-key {SECRET}", words.strip()]))
    assert BACK not in said
    assert "z z z z" in said
    assert len(said) < 440
    assert brief(["q" * 1000]) == "; its last lines: …"
    assert brief(["one", "two"]) == "; its last lines: one | two"
    assert brief([]) == "; it said nothing"
