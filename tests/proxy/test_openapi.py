"""docs/openapi.json tells the truth about our own pages: every answer to anything they are asked is one it names."""

import json
from collections.abc import Iterator
from itertools import product
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpod.proxy.access import ROUTES
from tests.proxy import front as fronts
from tests.proxy.described import DOCUMENT, check, schema_of
from tests.proxy.front import Client, Proxy, Reply, chat_body, proxy
from tests.proxy.stub import Stub, stub

PATHS = DOCUMENT["paths"]
PAGES = sorted(path for path in PATHS if "get" in PATHS[path])
ACTS = sorted(set(PATHS) - set(PAGES))
MANY = [
    pytest.param(60, id="sample"),
    pytest.param(20_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
]
ACCEPTS = [
    "*/*",
    "text/html",
    "application/openmetrics-text; version=1.0.0",
    "text/plain",
    "application/json",
    ",;q",
]
WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
FIELDS = st.dictionaries(
    st.sampled_from(
        [
            "query",
            "Origin",
            "Range",
            "If-None-Match",
            "Cache-Control",
            "Authorization",
            "X-Forwarded-For",
            "Cookie",
        ]
    ),
    WORDS,
    max_size=2,
)


@pytest.fixture(scope="module", params=["model", "nothing"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy with a model server and profiling, and one with neither."""
    base = {"PATH": "/usr/bin:/bin"}
    folder = tmp_path_factory.mktemp("asked")
    with stub() as server:
        if request.param == "model":
            environ = fronts.settings(folder / "c", server.url, ENABLE_PROFILING="1")
        else:
            environ = fronts.settings(
                folder / "c", LLMPOD_STATE=str(folder / "pod_state.json"), LLMPOD_MODELS="m"
            )
        with proxy(base | environ) as running:
            running.ask(chat_body("one"))
            yield running


def ask(front: Proxy, method: str, path: str, headers: dict[str, str]) -> Reply:
    with Client(front.port) as client:
        client.send(method, path, headers=headers)
        return client.reply(method)


def test_it_names_our_addresses_and_no_other() -> None:
    assert set(PATHS) == set(ROUTES)
    for path, methods in PATHS.items():
        assert set(methods) in ({"get", "head"}, {"post"})
        for said in methods.values():
            scopes = {scope for entry in said.get("security", []) for scope in entry.get("key", [])}
            assert (scopes or {"nothing"}) == {str(ROUTES[path])}


@pytest.mark.parametrize("count", MANY)
def test_every_answer_is_one_that_it_names(asked: Proxy, count: int) -> None:
    @settings(max_examples=count, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(PAGES), st.sampled_from(["GET", "HEAD"]), st.sampled_from(ACCEPTS), FIELDS)
    def run(target: str, method: str, accept: str, fields: dict[str, str]) -> None:
        query = fields.pop("query", "")
        asking = target + ("?" + quote(query, safe="=&") if query else "")
        check(ask(asked, method, asking, {"Accept": accept, **fields}), target, method)

    run()


@pytest.mark.parametrize("path", ACTS)
def test_every_answer_to_an_operators_word_is_one_that_it_names(asked: Proxy, path: str) -> None:
    (field,) = DOCUMENT["components"]["schemas"]["OfAnswer" if "cancel" in path else "OfModel"]["required"]
    bodies = [json.dumps({field: name}) for name in ("m", "nobody", "", 1)]
    for kind, body in product(("application/json", "text/plain"), (*bodies, f'["{field}"]', "{", "")):
        with Client(asked.port) as client:
            client.send("POST", path, body.encode(), {"Content-Type": kind})
            reply = client.reply()
        check(reply, path, "POST")
        assert reply.status >= 400, "nothing here starts with requests"


@pytest.mark.parametrize("path", sorted(ROUTES))
def test_other_methods_are_refused_in_the_same_shape(asked: Proxy, path: str) -> None:
    for method in sorted({"GET", "POST", "PUT", "PATCH", "DELETE"} - {word.upper() for word in PATHS[path]}):
        reply = ask(asked, method, path, {})
        assert reply.status == 405
        jsonschema.validate(
            reply.json, {"components": DOCUMENT["components"], "$ref": "#/components/schemas/Error"}
        )


def test_an_answer_that_is_not_as_described_is_seen(server: Stub) -> None:
    with pytest.raises(AssertionError):
        schema_of(Reply(500, {"content-type": "application/json"}, b"{}"), "/health", "GET")
    with pytest.raises(jsonschema.ValidationError):
        check(
            Reply(200, {"content-type": "application/json", "x-content-type-options": "nosniff"}, b"{}"),
            "/livez",
            "GET",
        )
