"""What docs/openapi.json says of our own pages, held against an answer."""

import json
from typing import Any

import jsonschema

from tests.proxy.front import Reply
from tests.support.source import ROOT

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs/openapi.json").read_text())


def schema_of(reply: Reply, path: str, method: str) -> Any:
    """What the document says of such an answer. Raises AssertionError when it says nothing."""
    answers = DOCUMENT["paths"][path][method.lower()]["responses"]
    assert str(reply.status) in answers, (path, reply)
    content = answers[str(reply.status)]["content"]
    kind = reply.headers["content-type"].partition(";")[0]
    assert kind in content, (path, kind)
    return content[kind]["schema"]


def check(reply: Reply, path: str, method: str) -> None:
    """Raises AssertionError or ValidationError: the answer is not as described."""
    schema = schema_of(reply, path, method)
    assert reply.headers["x-content-type-options"] == "nosniff"
    if method != "HEAD" and "$ref" in schema:
        whole = {"components": DOCUMENT["components"], **schema}
        jsonschema.validate(reply.json, whole, format_checker=jsonschema.FormatChecker())
