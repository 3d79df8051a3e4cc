"""manage_pod.py against the simulator: one pod at most, the right one, and none when it is over."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.install import Install


def posts(install: Install) -> list[str]:
    """Creating calls, refused ones included."""
    made = [r["path"] for r in install.sim.requests() if r["method"] == "POST"]
    return [path for path in made if path == "/v2/pods"]


def mutations(install: Install) -> list[str]:
    calls = [
        r for r in install.sim.requests() if r["path"] != "/graphql"
    ]  # which is asked by POST and changes nothing
    return [r["method"] for r in calls if r["method"] not in ("GET", "HEAD")]


def test_passes_bring_one_pod_up_and_shutdown_ends_it(install: Install) -> None:
    status = install.passes_until("ready")
    assert [pod["id"] for pod in install.sim.alive()] == [status["pod_id"]]
    assert status["usd_per_hour"] > 0
    assert status["deadline"] - status["created_at"] <= 3600
    body = install.sim.alive()[0]
    assert body["cloud"] == "SECURE"
    install.manage("--shutdown").expect()
    assert install.sim.alive() == []
    assert install.status()["phase"] == "stopped"
    bill = install.sim.bill()["total_usd"]
    install.sim.advance(3600)
    assert install.sim.bill()["total_usd"] == pytest.approx(bill)


def test_shutdown_is_sticky_for_cron_and_up_turns_it_round(install: Install) -> None:
    install.passes_until("ready")
    install.manage("--shutdown").expect()
    for _ in range(3):
        assert "down" in install.manage().expect().out
    assert install.sim.alive() == []
    install.manage("up").expect()
    assert len(install.sim.alive()) == 1


def test_a_pass_is_one_line_and_verbose_tells_every_step(install: Install) -> None:
    first = install.manage().expect()
    assert len(first.out.strip().splitlines()) == 1
    told = install.manage("--verbose").expect()
    assert len(told.out.strip().splitlines()) > 1


def test_fifty_passes_at_once_make_one_pod(install: Install) -> None:
    with ThreadPoolExecutor(50) as pool:
        done = list(pool.map(lambda _: install.manage(within=120), range(50)))
    assert [each.code for each in done] == [0] * 50
    assert len(posts(install)) == 1
    assert len(install.sim.alive()) == 1


@pytest.mark.parametrize("fault", ["created_then_500", "created_then_dropped", "created_then_garbage"])
@pytest.mark.parametrize("lag", [0.0, 1.0])
def test_an_unclear_create_is_found_by_name_and_never_repeated(
    install: Install, fault: str, lag: float
) -> None:
    install.sim.set(listing_lag_seconds=lag)
    install.sim.fault("create", fault)
    install.passes_until("ready")
    assert len(posts(install)) == 1
    assert len(install.sim.alive()) == 1


def test_the_first_gpu_in_stock_is_taken_with_one_call_each(install: Install) -> None:
    install.sim.set(no_capacity=["NVIDIA L4"], catalog_lies=True)
    status = install.passes_until("ready")
    assert status["gpu"] == "NVIDIA A40"
    assert len(posts(install)) == 2


def test_no_gpu_anywhere_is_said_in_runpods_own_words_and_tried_again_later(install: Install) -> None:
    install.sim.set(no_capacity=["NVIDIA L4", "NVIDIA A40"])
    done = install.manage().expect(75)
    assert "no longer any instances available" in done.out
    assert install.status()["next_try_at"] is not None
    install.manage().expect(0)
    assert len(posts(install)) == 2


def test_an_unknown_gpu_stops_for_a_person(install: Install) -> None:
    install.write(gpu_type_id="NVIDIA L44")
    assert "Unknown GPU type" in install.manage().expect(78).out
    install.manage().expect(0)
    assert len(posts(install)) == 1
    assert install.status()["phase"] == "failed"


@pytest.mark.parametrize(
    ("fault", "code", "words"), [("402", 76, "credit"), ("429", 75, "wait"), ("500", 75, "500")]
)
def test_refusals_have_their_own_code_and_next_step(
    install: Install, fault: str, code: int, words: str
) -> None:
    install.sim.fault("create", fault)
    assert words in install.manage().expect(code).out
    assert install.sim.alive() == []


def test_a_wrong_key_is_said_clearly(install: Install) -> None:
    wrong = {**install.environ, "RUNPOD_API_KEY": "rpa_not_the_right_one"}
    done = install.start(install.argv(), env=wrong).expect(77)
    assert "401" in done.out
    assert "rpa_not_the_right_one" not in done.out + done.err


def test_no_key_says_where_to_put_one(install: Install) -> None:
    done = install.start(install.argv(), env=install.env).expect(77)
    assert "llmpod/runpod_api_key" in done.err
    assert "make run" in done.err


def test_a_pod_that_answers_without_its_key_is_terminated_and_not_tried_again(install: Install) -> None:
    install.sim.set(pod_ignores_key=True)
    install.passes_until("failed")
    assert "without its key" in install.status()["error"]
    install.manage()
    assert install.sim.alive() == []
    assert len(posts(install)) == 1


def test_a_pod_that_serves_another_model_is_never_ready(install: Install) -> None:
    install.sim.set(wrong_model=True)
    for _ in range(4):
        install.manage()
    assert install.status()["phase"] == "loading"
    assert "not org/tiny-chat" in install.status()["error"]


def test_running_is_not_ready(install: Install) -> None:
    install.sim.set(container_seconds=1000.0)
    for _ in range(3):
        install.manage().expect()
    assert install.status()["phase"] == "created"
    install.sim.advance(1000)
    install.passes_until("ready")


def test_a_pod_that_exits_is_replaced_and_the_cap_holds(install: Install) -> None:
    install.sim.set(error_state=True)
    install.passes_until("failed")
    assert len(posts(install)) == 1 + 2, "max_restarts is 2"
    assert install.sim.alive() == []
    install.manage().expect()
    assert len(posts(install)) == 3


def test_a_pod_that_vanished_stays_down_by_default(install: Install) -> None:
    pod = install.passes_until("ready")["pod_id"]
    install.console("DELETE", f"/v2/pods/{pod}")
    install.passes_until("failed")
    assert "vanished" in install.status()["error"]
    install.manage().expect()
    assert install.sim.alive() == []
    assert len(posts(install)) == 1


def test_a_delete_that_fails_is_repeated_until_it_is_confirmed(install: Install) -> None:
    install.passes_until("ready")
    install.sim.fault("delete", "500", times=4)
    install.sim.set(delete_lag_seconds=0.5)
    install.manage("--shutdown").expect()
    assert install.sim.alive() == []


def test_one_listing_of_nothing_does_not_make_a_second_pod(install: Install) -> None:
    install.passes_until("ready")
    install.sim.fault("list", "empty")
    install.manage().expect()
    install.sim.fault("list", "500", times=2)
    assert install.manage().code == 75
    install.passes_until("ready")
    assert len(posts(install)) == 1


def test_the_listing_is_read_to_its_last_page(install: Install) -> None:
    install.sim.set(page_size=1)
    install.passes_until("ready")
    install.manage("--shutdown").expect()
    assert install.sim.alive() == []


def test_dry_run_and_plan_change_nothing(install: Install) -> None:
    for arguments in (("--dry-run",), ("plan",)):
        said = install.manage(*arguments).expect().out
        assert "would create" in said
        assert "$" in said
        assert "NVIDIA A40" in said
    assert mutations(install) == []
    files = {path.name for path in install.directory.rglob("*") if path.is_file()}
    assert files <= {"pod_config.json", "install.key"}


def test_catalog_is_checked_and_kept_for_when_the_api_is_away(install: Install) -> None:
    assert "GPU types" in install.manage("--refresh-catalog").expect().out
    listed = install.manage("--refresh-catalog", "--verbose").expect().out
    assert "NVIDIA H200" in listed
    install.write(gpu_type_id=["NVIDIA L4O"])
    assert "NVIDIA L4" in install.manage("--refresh-catalog").expect(78).err
    install.write(gpu_type_id=["NVIDIA L4"], runpod_api_url="http://127.0.0.1:9")
    away = install.manage("--refresh-catalog").expect().out
    assert "out of reach" in away
    assert "old" in away


def test_a_torn_state_file_is_rebuilt_from_the_providers_list(install: Install) -> None:
    pod = install.passes_until("ready")["pod_id"]
    state = install.directory / "pod_state.json"
    state.write_text(state.read_text()[:40])
    assert install.manage().code == 78
    assert install.passes_until("ready")["pod_id"] == pod
    assert len(posts(install)) == 1
    assert list(install.directory.glob("pod_state.json.corrupt-*"))


def test_a_newer_state_file_is_left_alone_and_shutdown_still_ends_the_pod(install: Install) -> None:
    install.passes_until("ready")
    state = install.directory / "pod_state.json"
    text = json.dumps({**json.loads(state.read_text()), "schema": 99})
    state.write_text(text)
    assert "newer" in install.manage().expect(78).out
    install.manage("--shutdown")
    assert install.sim.alive() == []
    assert state.read_text() == text


def test_a_foreign_pod_is_never_touched(install: Install) -> None:
    body = {"name": "somebody-elses", "image": "x/y:1", "gpu": {"id": "NVIDIA L4", "count": 1}}
    foreign = install.console("POST", "/v2/pods", body)["id"]
    install.passes_until("ready")
    install.manage("--shutdown").expect()
    assert [pod["id"] for pod in install.sim.alive()] == [foreign]


def test_two_installations_on_one_account_leave_each_other_alone(install: Install) -> None:
    other_dir = install.directory.parent / "other"
    other_dir.mkdir(mode=0o700)
    other = Install(other_dir, install.sim, install.env, start=install.start)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: i.passes_until("ready"), (install, other)))
    assert len(install.sim.alive()) == 2
    install.manage("--shutdown").expect()
    assert [pod["id"] for pod in install.sim.alive()] == [other.status()["pod_id"]]


def test_a_deadline_ends_the_pod_and_stays_in_force(install: Install) -> None:
    install.passes_until("ready")
    path = install.directory / "pod_state.json"
    document = json.loads(path.read_text())
    document["models"]["default"]["deadline"] = 1.0
    path.write_text(json.dumps(document))
    install.passes_until("stopped")
    assert install.sim.alive() == []
    assert install.status()["order"]["by"] == "expiry"
    install.manage().expect()
    assert install.sim.alive() == []


def test_the_key_is_nowhere_but_in_the_authorization_header(install: Install) -> None:
    install.passes_until("ready")
    install.manage("--verbose")
    key = install.sim.key.encode()
    found = [p for p in install.directory.rglob("*") if p.is_file() and key in p.read_bytes()]
    assert found == []
    for pod in install.sim.alive():
        assert install.sim.key not in json.dumps(pod)
