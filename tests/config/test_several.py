"""`models` and `groups`: one document, a configuration for each model, and mistakes said with their place."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmpod.config import Config, parse, salvage
from llmpod.errors import ConfigError

PATH = Path("/nowhere/pod_config.json")


def one(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "process": {"command": ["serve", model]}, **more}


def document(**more: Any) -> dict[str, Any]:
    models = {"chat": one("org/a", aliases=["gpt-4o"]), "coder": one("org/b", path="/code", idle_seconds=5)}
    return {"backend": "process", "start": "on_request", "models": models, **more}


def parsed(**more: Any) -> Config:
    return parse(document(**more), path=PATH, environ={})


def test_each_model_has_its_own_keys_then_the_common_ones_then_its_backends() -> None:
    config = parsed(idle_seconds=60, proxy_port=9000, groups={"gpu": {"members": ["chat", "coder"]}})
    chat, coder = config.models["chat"], config.models["coder"]
    assert (chat.hub_id, chat.idle_seconds, chat.path, chat.proxy_port) == ("org/a", 60, "/chat", 9000)
    assert (coder.hub_id, coder.idle_seconds, coder.path) == ("org/b", 5, "/code")
    assert chat.poll_interval_seconds == 0.25, "a local command's own default"
    assert (config.default, config.group_of("coder"), config.common.proxy_port) == ("chat", "gpu", 9000)
    assert parsed(default_model="coder").default == "coder"


def test_what_is_rented_stands_for_the_account() -> None:
    models = {"local": one("org/a", backend="process"), "pod": {"model": "org/b", "backend": "runpod"}}
    config = parse({"models": models}, path=PATH, environ={})
    assert config.common.hub_id == "org/b"
    assert config.default == "local"


def test_what_is_billed_stands_for_the_account_where_nothing_is_rented() -> None:
    """RunPod's own examples have a model in the environment; it is for a configuration without any."""
    models = {"local": one("org/a", backend="process"), "far": far("e1"), "farther": far("e2")}
    config = parse(
        {"backend": "runpod_serverless", "models": models},
        path=PATH,
        environ={"RUNPOD_DEFAULT_MODEL": "org/x"},
    )
    assert config.common.runpod_serverless is not None
    assert config.common.runpod_serverless.endpoint_id == "e1"
    assert config.default == "local"


def far(endpoint: str) -> dict[str, Any]:
    section = {"endpoint_id": endpoint, "api_key_file": "key"}
    return {"model": "org/a", "backend": "runpod_serverless", "runpod_serverless": section}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"models": {"a": far("e1"), "b": far("e1")}}, "models.b: the endpoint 'e1' is taken by 'a'"),
        ({"model": "org/x"}, "stands in each of `models`"),
        ({"default_model": "nobody"}, "default_model: there is no model 'nobody'"),
        ({"groups": {"gpu": {"members": ["chat", "other"]}}}, "groups.gpu: there is no model 'other'"),
        ({"start": "always", "groups": {"gpu": {"members": ["chat"]}}}, "groups.gpu.members"),
        (
            {"models": {"a": one("o/a", prioritty=1)}},
            "models.a.prioritty: unknown key. Did you mean `models.a.priority`",
        ),
        ({"models": {"a": one("o/a", proxy_port=1)}}, "models.a.proxy_port: `proxy_port` holds for all"),
        (
            {"models": {"a": one("o/a", enable_profilng=True)}},
            "`enable_profiling` holds for all models: write it",
        ),
        (
            {"models": {"a": one("o/a", backend="process", process={"command": "vllm serve 'a b'"})}},
            'models.a.process.command: write a list of words, not one text: ["vllm", "serve", "a b"]',
        ),
        ({"models": {"a": {"process": {"command": ["x"]}}}}, "models.a: give exactly one of"),
        ({"models": {"a": {"model": "o/a"}}}, "models.a: the backend `process` needs a section"),
        (
            {"models": {"a": one("o/a"), "b": one("o/b", aliases=["a"])}},
            "models.b: the name 'a' is taken by 'a'",
        ),
        (
            {"models": {"a": one("o/a"), "b": one("o/b", path="/a")}},
            "models.b: the path '/a' is taken by 'a'",
        ),
        ({"models": {"v1": one("o/a")}}, "everybody's path"),
        ({"models": {"A b": one("o/a")}}, "models"),
    ],
)
def test_mistakes_are_said_with_their_place(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(**change)
    assert words in str(caught.value)


def test_members_of_a_group_start_with_requests() -> None:
    with pytest.raises(ConfigError, match="to be stopped for another one"):
        parsed(
            start="always",
            groups={"gpu": {"members": ["chat", "coder"]}},
            models={"chat": one("org/a"), "coder": one("org/b")},
        )


def test_of_a_broken_document_the_models_are_known(tmp_path: Path) -> None:
    """Machines are known by the names of their models: without them none could be ended."""
    path = tmp_path / "pod_config.json"
    path.write_text(json.dumps(document(proxy_port="wrong")))
    assert set(salvage(path, {}).models) == {"chat", "coder"}
