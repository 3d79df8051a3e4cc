"""Not the keys of anybody: a file of keys as tests need one, and requests that carry them."""

import json
from pathlib import Path

from llmpod.config import CallerKey, Scope, digest_of, written
from tests.proxy.front import Client, Proxy, Reply, chat_body
from tests.proxy.stub import CHAT

KEYS = {
    scope: f"sk-local-{scope}-0123456789"
    for scope in ("infer", "metrics", "admin", "expired", "coder", "second")
}


def entry(name: str, **more: object) -> CallerKey:
    scopes = (Scope(name),) if name in tuple(Scope) else (Scope.INFER,)
    return CallerKey(f"key_{name}", name, digest_of(KEYS[name]), **{"scopes": scopes, **more})  # type: ignore[arg-type]


def write_keys(path: Path, *keys: CallerKey) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(written(keys))
    fresh.chmod(0o600)
    fresh.replace(path)


def call(front: Proxy, path: str, headers: dict[str, str], text: str = "hi") -> Reply:
    body = json.dumps(chat_body(text)).encode() if path == CHAT else b""
    with Client(front.port) as client:
        client.send("POST" if body else "GET", path, body, headers)
        return client.reply()
