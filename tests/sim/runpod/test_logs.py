"""The log stream: server-sent events that never end."""

import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest
import requests

from tests.sim.runpod.api import Api, problem


def events(
    api: Api, pod_id: str, *, last: str = "", **query: str
) -> Generator[tuple[str, dict[str, Any]], None, None]:
    """(id, data) of each event; ends when nothing came for a quarter of a second."""
    headers = {"Last-Event-ID": last} if last else {}
    answer = api.call(
        "GET", f"/v2/pods/{pod_id}/logs", params=query, headers=headers, stream=True, timeout=(5, 0.25)
    )
    with closing(answer):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        event_id = ""
        try:
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                name, _, value = line.partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value)
        except requests.ConnectionError:
            return
        raise AssertionError("the stream ended by itself")


def test_both_sources(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    for source in ("system", "container"):
        found = [data for _, data in events(api, pod_id, source=source)]
        assert {data["source"] for data in found} == {source}
        assert all(data["line"] and data["ts"].endswith("Z") for data in found)


def test_the_pull_of_the_image_shows_in_the_system_log_alone(api: Api) -> None:
    api.sim.set(container_seconds=1000)
    pod_id = api.create()["id"]
    api.sim.advance(500)
    system = [data["line"] for _, data in events(api, pod_id, source="system")]
    assert any("vllm/vllm-openai:v0.29.0" in line for line in system)
    assert list(events(api, pod_id, source="container")) == []


def test_tail_and_the_last_event_one_has_seen(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    whole = list(events(api, pod_id, source="system"))
    assert len(whole) >= 2
    assert list(events(api, pod_id, source="system", tail="1")) == whole[-1:]
    assert list(events(api, pod_id, source="system", last=whole[0][0])) == whole[1:]
    assert list(events(api, pod_id, source="system", last=whole[-1][0])) == []


def test_what_happens_while_one_listens_is_sent_at_once(api: Api) -> None:
    api.sim.set(container_seconds=1000)
    pod_id = api.create()["id"]
    stream = events(api, pod_id, source="container")
    api.sim.advance(1001)
    assert next(stream)[1]["source"] == "container"
    stream.close()


@pytest.mark.parametrize("query", [{"tail": "5001"}, {"tail": "-1"}, {"tail": "x"}, {"source": "kernel"}])
def test_a_bad_question_is_refused(api: Api, query: dict[str, str]) -> None:
    pod_id = api.create()["id"]
    assert problem(api.call("GET", f"/v2/pods/{pod_id}/logs", params=query))["status"] == 422
