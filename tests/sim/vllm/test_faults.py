"""Every fault as a client on a socket sees it."""

import json
import time
from typing import Any

import httpx
import pytest

from tests.sim.vllm.conftest import Fake
from tests.support.wait import eventually

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {"max_tokens": 50, "ignore_eos": True}


def received(fake: Fake, fault: str, *, stream: bool = True) -> tuple[bytes, Exception | None]:
    """What arrives of an answer, and how it breaks off."""
    body, got = fake.chat(**LONG, stream=stream), b""
    headers = {"x-sim-fault": fault}
    try:
        with fake.http.stream("POST", CHAT, json=body, headers=headers, timeout=1) as answer:
            for part in answer.iter_raw():
                got += part
    except httpx.HTTPError as error:
        return got, error
    return got, None


def test_cut_ends_the_connection_after_n_chunks(fake: Fake) -> None:
    got, error = received(fake, "cut@3")
    assert got.count(b"data: ") == 3
    assert isinstance(error, httpx.RemoteProtocolError)
    assert b"[DONE]" not in got


def test_cut_of_a_whole_answer_leaves_its_first_bytes(fake: Fake) -> None:
    got, error = received(fake, "cut@20", stream=False)
    assert len(got) == 20
    assert isinstance(error, httpx.RemoteProtocolError)


@pytest.mark.parametrize("stream", [True, False])
def test_stall_is_silent_until_the_client_leaves(fake: Fake, stream: bool) -> None:  # noqa: FBT001 - a parameter
    got, error = received(fake, "stall@2", stream=stream)
    assert got.count(b"data: ") == 2 if stream else len(got) == 2
    assert isinstance(error, httpx.ReadTimeout)
    eventually(lambda: fake.stats()["running"] == 0)
    assert fake.stats()["aborted"] == 1


def test_clean_end_has_no_done(fake: Fake) -> None:
    got, error = received(fake, "clean-end@2")
    assert (got.count(b"data: "), error) == (2, None)
    assert received(fake, "clean-end@7", stream=False) == (b'{"id":"', None)


def test_error_event_is_the_recorded_one(fake: Fake) -> None:
    got, error = received(fake, "error-event@2")
    *_, failure, done = [line for line in got.decode().splitlines() if line]
    assert error is None
    assert json.loads(failure.removeprefix("data: "))["error"]["code"] == 500
    assert done == "data: [DONE]"
    assert fake.post(CHAT, fake.chat(), x_sim_fault="error-event@2").status_code == 500


def test_abort_ends_both_forms_as_a_dying_server_does(fake: Fake) -> None:
    chunks = fake.chunks(CHAT, fake.chat(**LONG), x_sim_fault="abort@4")
    whole = fake.post(CHAT, fake.chat(**LONG), x_sim_fault="abort@4").json()
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "abort"]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert whole["choices"][0]["message"]["content"] == text != ""
    assert whole["choices"][0]["finish_reason"] == "abort"
    assert whole["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("status", [500, 503])
def test_errors_have_the_form_of_the_real_ones(fake: Fake, status: int) -> None:
    answer = fake.post(CHAT, fake.chat(), x_sim_fault=str(status))
    assert answer.status_code == answer.json()["error"]["code"] == status


def test_garbage_html_and_reset(fake: Fake) -> None:
    garbage = fake.post(CHAT, fake.chat(), x_sim_fault="garbage")
    assert garbage.status_code == 200
    with pytest.raises(ValueError, match=r"."):
        garbage.json()
    page = fake.post(CHAT, fake.chat(), x_sim_fault="html")
    assert (page.status_code, page.headers["content-type"]) == (502, "text/html; charset=utf-8")
    with pytest.raises(httpx.ReadError):
        fake.post(CHAT, fake.chat(), x_sim_fault="reset")


def test_slow_first_delays_the_first_byte(fake: Fake) -> None:
    began = time.monotonic()
    assert fake.post(CHAT, fake.chat(), x_sim_fault="slow-first=0.3").status_code == 200
    assert time.monotonic() - began >= 0.3


def test_orders_are_for_the_next_posts_only(fake: Fake) -> None:
    assert fake.http.post("/__sim/faults", json={"fault": "503", "times": 2}).json() == {"waiting": 2}
    assert fake.http.get("/v1/models").status_code == 200
    assert [fake.post(CHAT, fake.chat()).status_code for _ in range(3)] == [503, 503, 200]


def test_an_order_can_be_for_one_path(fake: Fake) -> None:
    fake.http.post("/__sim/faults", json={"fault": "500", "path": "/v1/models"})
    assert fake.post(CHAT, fake.chat()).status_code == 200
    assert [fake.http.get("/v1/models").status_code for _ in range(2)] == [500, 200]


@pytest.mark.parametrize("fault", ["", "cut", "cut@x", "cut@-1", "slow-first=nan", "500@2", "nonsense"])
def test_a_fault_that_does_not_exist_is_refused(fake: Fake, fault: str) -> None:
    assert fake.http.post("/__sim/faults", json={"fault": fault}).status_code == 400
    if fault:
        assert fake.post(CHAT, fake.chat(), x_sim_fault=fault).status_code == 400


def test_stats_tell_who_came_but_not_the_key(fake: Fake) -> None:
    fake.post(CHAT, fake.chat("first"))
    httpx.post(fake.url + CHAT, json={"any": 1}, headers={"authorization": "Bearer wrong"})
    stats = fake.stats()
    first, second = stats["bodies"]
    assert (stats["requests"], stats["by_path"], stats["aborted"], stats["running"]) == (2, {CHAT: 2}, 0, 0)
    assert first["body"]["messages"][0]["content"] == "first"
    assert [seen["headers"]["authorization"] for seen in (first, second)] == ["(the key)", "(not the key)"]
    assert fake.key not in json.dumps(stats)
    assert "wrong" not in json.dumps(stats)
    fake.http.post("/__sim/reset")
    assert fake.stats()["requests"] == 0


def test_metrics_follow_what_happens(fake: Fake) -> None:
    def value(name: str, **labels: str) -> float:
        lines = [
            line for line in fake.http.get("/metrics").text.splitlines() if line.startswith(f"vllm:{name}{{")
        ]
        wanted = [line for line in lines if all(f'{key}="{text}"' in line for key, text in labels.items())]
        return float(wanted[0].split()[-1])

    before, ended = value("generation_tokens_total"), value("request_success_total", finished_reason="length")
    usage: dict[str, Any] = fake.post(CHAT, fake.chat(max_tokens=5)).json()["usage"]
    assert value("generation_tokens_total") - before == usage["completion_tokens"] == 5
    assert value("request_success_total", finished_reason="length") == ended + 1
