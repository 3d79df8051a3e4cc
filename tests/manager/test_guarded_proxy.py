"""A proxy that asks for keys: the manager starts it, knows it and reads it; nobody else does without one."""

import json

import requests

from llmpod.config import KEYS_FILE
from tests.support.install import Install


def test_the_manager_gets_on_with_a_proxy_that_asks_for_keys(install: Install) -> None:
    install.proxy = True
    install.write(auth="keys", requests_per_minute=1000)
    said = install.manage("keys", "add", "laptop", "--scope", "infer").expect().out
    key = next(word for word in said.split() if word.startswith("sk-local-"))
    install.passes_until("ready")
    url = f"http://127.0.0.1:{install.port}"
    pid = requests.get(url + "/health", timeout=10).json()["pid"]
    for path in ("/v1/models", "/metrics", "/dashboard"):
        assert requests.get(url + path, timeout=10).status_code == 401
    bearer = {"Authorization": f"Bearer {key}"}
    assert requests.get(url + "/v1/models", headers=bearer, timeout=10).status_code == 200
    assert requests.get(url + "/metrics", headers=bearer, timeout=10).status_code == 403
    cost = json.loads(install.manage("cost", "--json").expect().out)
    assert "answers 401" not in json.dumps(cost)  # as text: a time or a price may hold those digits
    install.manage().expect()
    assert requests.get(url + "/health", timeout=10).json()["pid"] == pid  # known as well: not replaced
    kept = (install.directory / ".llmpod/pod_state" / KEYS_FILE).read_text()
    assert key not in kept + install.manage("status", "--json").out
    install.manage("--shutdown").expect()


def test_commands_find_a_proxy_that_listens_elsewhere(install: Install) -> None:
    install.proxy = True
    install.write(proxy_host="127.0.0.2")
    install.passes_until("ready")
    assert requests.get(f"http://127.0.0.2:{install.port}/health", timeout=10).status_code == 200
    assert "does not answer" not in install.manage("cost", "--json").expect().out
    found = {check["name"]: check for check in json.loads(install.manage("doctor", "--json").out)["checks"]}
    assert "healthy" in json.dumps(found["proxy"])
    install.manage("--shutdown").expect()
