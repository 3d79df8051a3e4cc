"""What runs in a pod: the model server that its command line asks for, with its own key."""

import json
from typing import Any

import openai
import pytest

from tests.sim.runpod.api import MODEL, Api


def test_the_official_client_talks_to_the_model_through_the_proxy_host(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    with openai.OpenAI(base_url=api.url(pod_id, "/v1"), api_key="pod-key", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
        assert whole.choices[0].message.content
        with client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], stream=True
        ) as stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == whole.choices[0].message.content


def test_the_model_server_wants_its_own_key(api: Api) -> None:
    pod_id = api.create()["id"]
    api.ready(pod_id)
    assert api.through(pod_id, "/v1/models").status_code == 401
    for key, status in (("pod-key", 200), (api.sim.key, 401)):
        headers = {"Authorization": f"Bearer {key}"}
        assert api.through(pod_id, "/v1/models", headers=headers).status_code == status


FORMS: list[dict[str, Any]] = [
    {"cmd": [MODEL, "--served-model-name", "mine", "--max-model-len", "4096"]},
    {"cmd": ["--model", MODEL, "--served-model-name=mine", "--max-model-len=4096"]},
    {"cmd": None, "args": f"--model {MODEL} --served-model-name mine --max-model-len 4096"},
    {"cmd": None, "args": f"{MODEL} --served-model-name mine --max-model-len 4096"},
    {
        "cmd": None,
        "args": json.dumps({"cmd": [MODEL, "--served-model-name", "mine", "--max-model-len", "4096"]}),
    },
    {
        "image": "some/other:1",
        "entrypoint": ["vllm", "serve"],
        "cmd": [MODEL, "--served-model-name", "mine", "--max-model-len", "4096"],
    },
    {
        "image": "some/other:1",
        "entrypoint": ["python3", "-m", "vllm.entrypoints.openai.api_server"],
        "cmd": ["--model", MODEL, "--served-model-name", "mine", "--max-model-len", "4096"],
    },
    {
        "entrypoint": ["/bin/bash", "-c"],
        "cmd": [
            'watch & exec vllm serve "$@"',
            "--",
            MODEL,
            "--served-model-name",
            "mine",
            "--max-model-len",
            "4096",
        ],
    },
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "/".join(name for name in form if form[name]))
def test_a_command_in_all_its_forms(api: Api, form: dict[str, Any]) -> None:
    pod_id = api.create(**form)["id"]
    api.ready(pod_id)
    models = api.through(pod_id, "/v1/models", headers={"Authorization": "Bearer pod-key"}).json()["data"]
    assert [(model["id"], model["root"], model["max_model_len"]) for model in models] == [
        ("mine", MODEL, 4096)
    ]


def test_a_pod_that_ignores_its_key(api: Api) -> None:
    api.sim.set(pod_ignores_key=True)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    assert api.through(pod_id, "/v1/models").status_code == 200


def test_a_pod_that_serves_another_model(api: Api) -> None:
    api.sim.set(wrong_model=True)
    pod_id = api.create()["id"]
    api.ready(pod_id)
    headers = {"Authorization": "Bearer pod-key"}
    models = api.through(pod_id, "/v1/models", headers=headers).json()["data"]
    assert MODEL not in [model["id"] for model in models]
