"""The simulator accepts and refuses the same bodies as RunPod's own OpenAPI document, on generated bodies.

Valid bodies are generated, and mutated at random places; both sides judge each over the wire. A plain 400 is the
handler's, after the schema accepted; a 422 with a list of errors is the schema's.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpod.sim.launch import Simulator
from tests.sim.runpod.api import Api
from tests.sim.runpod.api import body as asked
from tests.support.source import ROOT

SPEC = ROOT.parent / "shared" / "runpod" / "openapi-v2.json"
GPUS = ["NVIDIA L4", "NVIDIA A40"]
pytestmark = pytest.mark.skipif(not SPEC.exists(), reason=f"RunPod's specification is not at {SPEC}")


@pytest.fixture(scope="module")
def judge() -> Iterator["Judge"]:
    behavior = {"no_capacity": GPUS, "container_seconds": 1e6, "min_disk_gb": 0}
    with Simulator.start(pods="inline", behavior=behavior) as simulator:
        api = Api(simulator)
        yield Judge(api)
        api.close()


class Judge:
    """Asks the simulator and the specification."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._spec = json.loads(SPEC.read_text(encoding="utf-8"))
        made = api.create(gpu=None, cpu={"id": "cpu3c", "vcpuCount": 2}, cmd=None)
        self.pod = f"/v2/pods/{made['id']}"

    def schema(self, name: str) -> Any:
        """RunPod's schema of a request."""
        document = {"$ref": f"#/components/schemas/{name}", "components": self._spec["components"]}
        return jsonschema.Draft202012Validator(document)

    def refuses(self, method: str, path: str, body: Any) -> bool:
        headers = {"Content-Type": "application/json"}
        answer = self._api.call(method, path, data=json.dumps(body), headers=headers)
        assert answer.status_code < 500, answer.text
        if answer.status_code != 422:
            return False
        found = answer.json()
        return bool(found["detail"] == "Request validation failed." and found["errors"])


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
words = st.lists(text, max_size=3)
versions = st.sampled_from(["12.8", "13.0", "12", "12.8.1", "a.b", "", "12.8\n"])
env = st.dictionaries(text, text, max_size=3)
gpu = st.fixed_dictionaries(
    {"id": st.sampled_from(GPUS)},
    optional={
        "count": st.integers(1, 8),
        "allowedCudaVersions": st.lists(versions, max_size=2),
        "minCudaVersion": versions,
        "minRamPerGpu": st.integers(0, 3),
        "minVcpuCountPerGpu": st.integers(0, 3),
    },
)
mounts = st.fixed_dictionaries(
    {},
    optional={
        "persistent": st.fixed_dictionaries({"size": st.integers(8, 12), "path": text}),
        "network": st.lists(st.fixed_dictionaries({"volumeId": text, "path": text}), max_size=2),
    },
)
container = {
    "args": text,
    "cmd": words,
    "entrypoint": words,
    "disk": st.integers(0, 100),
    "env": env,
    "ports": st.lists(st.sampled_from(["8000/http", "22/tcp", "80", ""]), max_size=3),
    "registry": st.none() | text,
}
flags = dict.fromkeys(["globalNetworking", "startSsh", "startJupyter"], st.booleans())
creates = st.fixed_dictionaries(
    {"name": text, "gpu": gpu},
    optional={
        **container,
        **flags,
        "image": text,
        "cloud": st.sampled_from(["SECURE", "COMMUNITY", "ALL"]),
        "dataCenterIds": words,
        "mounts": mounts,
        "templateId": text,
        "cpu": st.fixed_dictionaries({"id": text, "vcpuCount": st.integers(0, 4)}),
    },
)
updates = st.fixed_dictionaries(
    {},
    optional={
        **container,
        "image": text,
        "name": text,
        "locked": st.booleans(),
        "globalNetworking": st.booleans(),
        "mounts": mounts,
        "templateId": text,
    },
)
actions = st.fixed_dictionaries(
    {"action": st.sampled_from(["start", "stop", "restart", "reset", "", "START"])}
)
junk = st.sampled_from(
    [None, True, 0, 1, -1, 1.0, 1.5, 10.0, 1e30, "", "x", "12.8", [], [1], ["x"], {}, {"x": "y"}]
).map(deepcopy)
strays = st.sampled_from(["supportPublicIp", "gpuTypeIds", "imageName", "id", "name", "cmd", "count", ""])


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) inside a body."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = [(value, key) for key, _ in pairs]
    for _, inner in pairs:
        found += places(inner) if isinstance(inner, dict | list) else []
    return found


@st.composite
def mutated(draw: st.DrawFn, bodies: st.SearchStrategy[dict[str, Any]]) -> Any:
    """A body in which up to two places were replaced, removed or added to."""
    body: Any = deepcopy(draw(bodies))
    for _ in range(draw(st.integers(0, 2))):
        spots = places(body)
        if not spots or draw(st.integers(0, 5)) == 0:
            body[draw(strays)] = draw(junk)
            continue
        holder, key = draw(st.sampled_from(spots))
        if draw(st.booleans()):
            holder[key] = draw(junk)
        else:
            del holder[key]
    return body if draw(st.integers(0, 30)) else draw(junk)


many = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = settings(many, max_examples=120)


@many
@given(body=mutated(creates))
def test_create(judge: Judge, body: Any) -> None:
    assert judge.refuses("POST", "/v2/pods", body) == (not judge.schema("CreatePodRequest").is_valid(body))


@many
@given(body=mutated(updates))
def test_update(judge: Judge, body: Any) -> None:
    assert judge.refuses("PATCH", judge.pod, body) == (not judge.schema("UpdatePodRequest").is_valid(body))


@few
@given(body=mutated(actions))
def test_action(judge: Judge, body: Any) -> None:
    refused = judge.refuses("POST", f"{judge.pod}/action", body)
    assert refused == (not judge.schema("PodActionRequest").is_valid(body))


def test_good_bodies_are_good_to_both(judge: Judge) -> None:
    full = asked(
        cloud="COMMUNITY",
        dataCenterIds=["EU-RO-1"],
        registry=None,
        mounts={"network": [{"volumeId": "v", "path": "/workspace"}]},
    )
    assert judge.schema("CreatePodRequest").is_valid(full)
    assert not judge.refuses("POST", "/v2/pods", full)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("state_mode", ["real", "doc"])
def test_answers_are_as_specified(api: Api, state_mode: str, old: bool) -> None:  # noqa: FBT001 - a parameter
    judge = Judge(api)
    api.sim.set(state_mode=state_mode, old_payload=old, container_seconds=10)
    pod_id = api.create(ports=["8000/http", "8000/tcp"], cmd=None)["id"]
    for _ in range(3):
        judge.schema("Pod").validate(api.pod(pod_id))
        judge.schema("ListPodsResponse").validate(api.call("GET", "/v2/pods").json())
        api.sim.advance(5)
    gpus = api.call("GET", "/v2/catalog/gpus", params={"include": "AVAILABILITY", "product": "POD"}).json()
    judge.schema("ListGpuTypesResponse").validate(gpus)
    judge.schema("ListPodBillingResponse").validate(api.call("GET", "/v2/billing/pods").json())
