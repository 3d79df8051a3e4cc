"""Following the manager: the state file says where the model is; what was used is told in a file."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store
from llmpod.model import Phase, Record
from tests.proxy.front import Proxy, chat_body, proxy, settings
from tests.proxy.stub import Stub, stub
from tests.support.wait import eventually

READY = Record(
    phase=Phase.READY,
    name="llmpod-aa-1",
    model="org/model",
    served_name="served",
    usd_per_hour=0.5,
    created_at=1e9,
)


@pytest.fixture
def state_file(state_dir: Path) -> Path:
    return state_dir / "pod_state.json"


def write(state_file: Path, record: Record) -> Store:
    store = Store(state_file)
    store.save(State(records={"default": record}))
    return store


@pytest.fixture
def following(state_file: Path, cache_dir: Path, env: dict[str, str]) -> Iterator[Proxy]:
    more = {"LLMPOD_STATE": str(state_file), "LLMPOD_MODELS": "org/model"}
    with proxy(env | settings(cache_dir, **more)) as front:
        yield front


def running(front: Proxy) -> bool:
    return bool(front.get("/health").json["llm_running"])


def test_nothing_runs(following: Proxy) -> None:
    reply = following.ask(chat_body())
    assert (reply.status, reply.json["error"]["code"]) == (503, "model_not_ready")
    assert int(reply.headers["retry-after"]) > 0
    assert "manage_pod.py up" in reply.json["error"]["message"]
    assert following.get("/readyz").status == 503
    assert following.get("/livez").status == 200
    listed = following.get("/v1/models").json
    assert [m["id"] for m in listed["data"]] == ["org/model"]


@pytest.mark.parametrize(
    ("phase", "word"), [(Phase.CREATED, "set up"), (Phase.LOADING, "loading"), (Phase.FAILED, "No machine")]
)
def test_the_answer_says_how_far_it_is(following: Proxy, state_file: Path, phase: Phase, word: str) -> None:
    write(state_file, replace(READY, phase=phase, error="why not"))
    eventually(lambda: word in following.ask(chat_body()).json["error"]["message"])


def test_who_was_told_that_it_is_ready_is_not_refused(following: Proxy, state_file: Path) -> None:
    """The next command of a script that waited for `ready`: the state is looked at before anybody is refused."""
    with stub() as server:
        for number in range(5):
            write(state_file, replace(READY, phase=Phase.STOPPED, base_url=None, name=""))
            eventually(lambda: not running(following))
            write(state_file, replace(READY, base_url=server.url))
            assert following.ask(chat_body(f"at once, {number}")).status == 200


def test_pods_come_and_go_without_a_restart(following: Proxy, state_file: Path) -> None:
    with stub() as one, stub() as two:
        store = write(state_file, replace(READY, base_url=one.url))
        eventually(lambda: running(following))
        assert (
            following.ask(chat_body("first pod"), headers={"Authorization": "Bearer client"}).cache == "MISS"
        )
        assert one.turns[0].headers["authorization"] == f"Bearer {store.pod_key(READY.name).reveal()}"
        write(state_file, replace(READY, base_url=two.url, name="llmpod-aa-2"))
        eventually(lambda: following.get("/health").json["target_port"] == two.port)
        assert following.ask(chat_body("second pod")).cache == "MISS"
        assert two.turns[0].headers["authorization"] == f"Bearer {store.pod_key('llmpod-aa-2').reveal()}"
        assert (len(one.turns), len(two.turns)) == (1, 1)
        assert following.ask(chat_body("first pod")).cache == "HIT"
        write(state_file, replace(READY, phase=Phase.STOPPED, base_url=None, name=""))
        eventually(lambda: not running(following))
        assert following.ask(chat_body("first pod")).cache == "HIT"
        assert following.ask(chat_body("second pod", stream=True)).cache == "HIT"
        assert following.ask(chat_body("third")).status == 503


def test_what_was_let_go_is_taken_back_before_anything_is_sent_to_it(
    following: Proxy, state_file: Path
) -> None:
    """A configuration changed and changed back: the next change must not find a machine at work as one let go."""
    with stub() as server:
        there = replace(READY, base_url=server.url)
        store = write(state_file, replace(there, outdated=True))
        eventually(lambda: (use := store.usage().get("default")) and use.let_go == READY.name)
        write(state_file, there)
        eventually(lambda: running(following), every=0.005)
        assert store.usage()["default"].let_go == ""


def test_an_unreadable_state_changes_nothing(following: Proxy, state_file: Path) -> None:
    with stub() as server:
        write(state_file, replace(READY, base_url=server.url))
        eventually(lambda: running(following))
        state_file.write_text("{ half")
        eventually(lambda: [line for line in following.logs() if line["event"] == "state_unreadable"])
        assert following.ask(chat_body("still there")).status == 200


@pytest.mark.parametrize("odd", ["nonsense", "http://h:port", "http://[::1"])
def test_an_address_that_is_none_is_told_and_the_next_one_followed(
    following: Proxy, state_file: Path, odd: str
) -> None:
    write(state_file, replace(READY, base_url=odd))
    eventually(lambda: any(line["event"] == "state_unreadable" for line in following.logs()))
    with stub() as server:
        write(state_file, replace(READY, base_url=server.url))
        eventually(lambda: running(following))


def test_use_is_told_and_hits_are_no_use(following: Proxy, state_file: Path) -> None:
    with stub() as server:
        store = write(state_file, replace(READY, base_url=server.url))
        eventually(lambda: running(following))
        following.ask(chat_body("used"))
        used = eventually(lambda: (u := store.usage().get("default")) and u.last_byte and u)
        assert used
        assert (used.requests, used.in_flight) == (1, 0)
        following.ask(chat_body("used"))
        following.ask(chat_body("used again"))
        eventually(lambda: store.usage()["default"].requests == 2)


def test_a_wish_for_a_model_that_does_not_run_is_told(following: Proxy, state_file: Path) -> None:
    store = write(state_file, replace(READY, phase=Phase.STOPPED))
    following.ask(chat_body("wanted"))
    eventually(lambda: (u := store.usage().get("default")) and u.wake_wanted)


def test_the_dashboard_says_what_it_costs(following: Proxy, state_file: Path) -> None:
    with stub() as server:
        write(state_file, replace(READY, base_url=server.url))
        eventually(lambda: running(following))
        (model,) = following.get("/dashboard").json["models"]
        assert (model["phase"], model["usd_per_hour"]) == ("ready", 0.5)
        assert model["usd_so_far"] > 0
        assert Store(state_file).pod_key(READY.name).reveal() not in following.get("/dashboard").body.decode()


def test_the_key_never_leaves_with_a_fixed_endpoint(front: Proxy, server: Stub) -> None:
    front.ask(chat_body("no key"))
    assert "authorization" not in server.turns[0].headers
