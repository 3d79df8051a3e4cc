"""Files that are lost or damaged end no watch, undo no order and buy no second pod."""

import json
import shutil
from pathlib import Path

import pytest

from tests.manager.passes import alive, creates, pass_deadline, until
from tests.support.install import Install

ORDERS = ".llmpod/pod_state/orders.json"
KEY = ".llmpod/pod_state/install.key"


@pytest.mark.parametrize("content", ["", "{", '{"default": {"direction": "up", "later": 1}}'])
def test_damaged_orders_do_not_undo_a_shutdown(install: Install, content: str) -> None:
    until(install, "ready")
    install.manage("--shutdown").expect()
    install.sim.advance(4000)
    (install.directory / ORDERS).write_text(content)
    for _ in range(3):
        install.manage().expect(78)
    assert alive(install) == []
    install.manage("up")
    assert len(alive(install)) == 1, "a person's order replaces the damaged file"


def test_damaged_orders_do_not_make_an_expiry_a_new_run(install: Install) -> None:
    until(install, "ready")
    (install.directory / ORDERS).write_text("{")
    pass_deadline(install)
    for _ in range(5):
        install.manage()
    assert (alive(install), creates(install)) == ([], 1)


def test_lost_orders_start_nothing(install: Install) -> None:
    until(install, "ready")
    install.manage("--shutdown").expect()
    shutil.rmtree(install.directory / ".llmpod")
    for _ in range(3):
        install.manage()
    assert alive(install) == []


@pytest.mark.parametrize("policy", ["down", "restart"])
def test_a_pod_that_shows_up_again_after_it_was_taken_for_gone_is_ended(
    install: Install, policy: str
) -> None:
    install.write(on_vanished=policy)
    until(install, "ready")
    first = alive(install)
    for _ in range(8):
        if install.state()["instance_id"] is None:
            break
        install.sim.fault("list", "empty")
        install.sim.fault("get", "404")
        install.manage()
        install.sim.advance(30)
    install.manage()
    assert alive(install) != first
    install.manage()
    assert len(alive(install)) <= 1
    pods = [pod for pod in install.sim.state()["pods"] if pod["terminated_at"] is None]
    assert len(pods) <= 1


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfa" * 20])
@pytest.mark.parametrize("call", [(), ("--shutdown",), ("panic",)])
def test_a_damaged_key_file_keeps_no_pod_alive(
    install: Install, content: bytes, call: tuple[str, ...]
) -> None:
    until(install, "ready")
    (install.directory / KEY).write_bytes(content)
    pass_deadline(install)
    done = install.manage(*call)
    if call != ("panic",):  # which has to do all by itself
        install.manage(*call)
    assert alive(install) == []
    assert "Traceback" not in done.err


def test_a_lost_directory_does_not_lose_an_unclear_create(install: Install) -> None:
    install.sim.fault("create", "created_then_500")
    install.manage()
    shutil.rmtree(install.directory / ".llmpod")
    for _ in range(4):
        install.manage()
        install.sim.advance(60)
        assert len(alive(install)) == 1
    assert creates(install) <= 2


def test_a_lost_state_file_is_no_reason_to_buy_at_once(install: Install) -> None:
    install.sim.set(listing_lag_seconds=20)
    install.manage()
    (install.directory / "pod_state.json").unlink()
    install.manage()
    assert creates(install) == 1
    install.sim.advance(30)
    until(install, "ready")
    assert len(alive(install)) == 1


@pytest.mark.parametrize("call", ["--shutdown", "panic"])
def test_a_broken_configuration_still_says_where_the_state_is(install: Install, call: str) -> None:
    (install.directory / "state").mkdir(mode=0o700)
    install.write(state_file="state/mine.json")
    install.manage()
    assert len(alive(install)) == 1
    text = json.dumps(install.config, indent=1)
    Path(install.path).write_text(text.removesuffix("}") + ", oops")
    install.manage(call)
    assert alive(install) == []
