"""Not a client: ``connect`` says how to point a client at our proxy, and writes it where the file's form is certain.

Sources: docs.continue.dev/reference (config.yaml), aider.chat/docs/config (.aider.conf.yml, model metadata), and
clients driven against a tracing server for what each of them sends.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmpod.cli import demos
from llmpod.cli.command import Command, Invocation
from llmpod.cli.switch import named
from llmpod.cli.yamltext import with_item, with_keys
from llmpod.config import PodConfig
from llmpod.errors import BadRequest, ConfigError, StateError
from llmpod.identity import process_id
from llmpod.lifecycle import files
from llmpod.lifecycle.store import Store

KEY = "llmpod"  # any will do: the proxy sends the pod's own


@dataclass(frozen=True, slots=True)
class Address:
    """What a client must know. ``context`` is the context length in tokens, or None when it is the model's own."""

    base_url: str
    model: str
    context: int | None


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Args:
        title: what it is called.
        told: the whole instruction, given the address.
        file: its configuration below the home directory, where we can write it.
        merged: the file's text with our settings; raises ConfigError.
    """

    title: str
    told: Callable[[Address], str]
    file: str | None = None
    merged: Callable[[str, Address], str] | None = None


# --- what each of them needs
def _continue_item(a: Address) -> list[str]:
    context = [f"  defaultCompletionOptions: {{contextLength: {a.context}}}"] if a.context else []
    return [
        f"- name: {json.dumps(f'llmpod {a.model}')}",
        "  provider: openai",
        f"  model: {json.dumps(a.model)}",
        f"  apiBase: {json.dumps(a.base_url)}",
        f"  apiKey: {KEY}",
        "  roles: [chat, edit, apply]",
        *context,
    ]


def _continue_merged(text: str, a: Address) -> str:
    return with_item(
        text, "models", _continue_item(a), head=("name: Local Assistant", "version: 1.0.0", "schema: v1")
    )


def _continue_told(a: Address) -> str:
    item = "\n".join(f"  {line}" for line in _continue_item(a))
    return f"In ~/.continue/config.yaml:\n\nmodels:\n{item}\n\nAdd `autocomplete` to roles for a coder model."


def _aider_keys(a: Address) -> Mapping[str, str]:
    return {"model": f"openai/{a.model}", "openai-api-base": a.base_url, "openai-api-key": KEY}


def _aider_merged(text: str, a: Address) -> str:
    return with_keys(text, _aider_keys(a), keep=("openai-api-key",))


def _aider_told(a: Address) -> str:
    lines = "\n".join(f"{key}: {json.dumps(value)}" for key, value in _aider_keys(a).items())
    text = f"In ~/.aider.conf.yml, or in that of the repository:\n\n{lines}"
    if a.context is None:
        return text
    known = {"max_input_tokens": a.context, "litellm_provider": "openai", "mode": "chat"}
    metadata = json.dumps({f"openai/{a.model}": known}, indent=2)
    return f"{text}\n\nIn ~/.aider.model.metadata.json, so that aider knows the context length:\n\n{metadata}"


def _form(*rows: str) -> Callable[[Address], str]:
    """For a settings page: what to open, then what to fill in."""

    def told(a: Address) -> str:
        context = [f"Context window size: {a.context}"] if a.context else []
        fields = [
            f"Base URL:    {a.base_url}",
            f"API key:     {KEY} (any)",
            f"Model ID:    {a.model}",
            *context,
        ]
        return "\n".join([*rows, *(f"  {field}" for field in fields)])

    return told


def _openai_told(a: Address) -> str:
    return (
        f"export OPENAI_BASE_URL={shlex.quote(a.base_url)}\nexport OPENAI_API_KEY={KEY}\n# model: {a.model}"
    )


def _curl_told(a: Address) -> str:
    body = {"model": a.model, "messages": [{"role": "user", "content": "Hello"}]}
    url = shlex.quote(f"{a.base_url}/chat/completions")
    return f"curl {url} \\\n  -H 'Content-Type: application/json' \\\n  -d {shlex.quote(json.dumps(body))}"


CLIENTS: Mapping[str, Client] = {
    "continue": Client("Continue", _continue_told, ".continue/config.yaml", _continue_merged),
    "kilo": Client(
        "Kilo Code",
        _form("In VS Code: Kilo Code, gear icon, Providers; API Provider `OpenAI Compatible`:"),
    ),
    "cline": Client(
        "Cline",
        _form("In VS Code: Cline, gear icon, API Configuration; API Provider `OpenAI Compatible`:"),
    ),
    "codegpt": Client(
        "CodeGPT", _form("In the editor: CodeGPT, provider list, `Custom` (an OpenAI-compatible service):")
    ),
    "aider": Client("aider", _aider_told, ".aider.conf.yml", _aider_merged),
    "openai": Client("the OpenAI SDKs, and what reads their variables", _openai_told),
    "curl": Client("curl", _curl_told),
}


# --- the command
def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "client",
        nargs="?",
        choices=tuple(CLIENTS),
        metavar="CLIENT",
        help=f"{', '.join(CLIENTS)}; without: what each of them is",
    )
    parser.add_argument(
        "--model", metavar="NAME", help="of several: which one (its name in `models`, or an alias)"
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write it into the client's own file (continue, aider), with a backup",
    )


def connect(call: Invocation) -> int:
    """Print the settings, or write them; without a client, which ones there are. Raises BadRequest, ConfigError."""
    if call.options.client is None:
        return _list(call)
    client, (address, runs) = CLIENTS[call.options.client], _address(call)
    if call.options.write:
        _write(call, client, address)
    else:
        print(client.told(address))
    if others := [name for name in _names(call) if name != address.model]:
        print(f"The same address has more models: {', '.join(others)}; `--model` takes one.", file=sys.stderr)
    _warn(call, runs=runs)
    return 0


def _warn(call: Invocation, *, runs: bool) -> None:
    """Where nobody answers there, and who else runs here."""
    if runs:
        return
    print("The proxy does not run now; `up` starts it.", file=sys.stderr)
    for demo in demos.running(call.config_path):
        print(f"A demo {demo}; it has its own address and model.", file=sys.stderr)


def _list(call: Invocation) -> int:
    if call.options.write:
        raise BadRequest("Say for which client to write.", hint=f"One of: {', '.join(CLIENTS)}.")
    address, runs = _address(call)
    names = [address.model] if call.options.model else _names(call)
    what = f"the model {names[0]}" if len(names) == 1 else f"one of the models {', '.join(names)}"
    print(f"Any OpenAI client: {address.base_url} with {what}. `connect CLIENT` says more:")
    for name, client in CLIENTS.items():
        print(f"  {name:10}{client.title}{', which --write sets up' if client.merged else ''}")
    _warn(call, runs=runs)
    return 0


def _address(call: Invocation) -> tuple[Address, bool]:
    """Of the running proxy, else the one it will have."""
    config = call.config()
    wanted = call.options.model
    chosen = config.models[named(config, wanted) if wanted else config.default]
    common = config.common
    try:
        proxy = Store(common.state_file).load().proxy
    except StateError:
        proxy = None
    alive = proxy is not None and process_id(proxy.process.pid) == proxy.process
    port = proxy.port if proxy is not None and alive else common.proxy_port
    scheme = "https" if common.use_https else "http"
    return Address(f"{scheme}://localhost:{port}/v1", _called(chosen), chosen.max_model_len), alive


def _names(call: Invocation) -> list[str]:
    """Of all models, as clients call them."""
    return [_called(model) for model in call.config().models.values()]


def _called(model: PodConfig) -> str:
    """As a client asks for it."""
    return model.served_model_name or model.hub_id.partition("@")[0]


def _write(call: Invocation, client: Client, address: Address) -> None:
    """In one step, keeping the old text beside it. A link to the file stays one.

    Raises:
        ConfigError: this client's settings are not in a file that we know, or it has a form that we do not.
    """
    if client.file is None or client.merged is None:
        raise ConfigError(
            f"The settings of {client.title} are not written by a file.",
            hint=f"`connect {call.options.client}` says what to enter.",
        )
    path = (Path(call.environ.get("HOME", "~")).expanduser() / client.file).resolve()
    try:
        old = path.read_text(encoding="utf-8") if path.exists() else None
        mode = path.stat().st_mode & 0o777 if old is not None else 0o600
        path.parent.mkdir(parents=True, exist_ok=True)
        new = client.merged(old or "", address)
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"Cannot use {path}: {e}.") from None
    except ConfigError as e:
        raise ConfigError(
            f"{path} is left as it is: {e.message}", hint=f"`connect {call.options.client}` says what to add."
        ) from None
    if new == old:
        call.say(f"{path} has it already.")
        return
    if old is not None:
        files.write_atomic(path.with_name(path.name + ".bak"), old)
    files.write_atomic(path, new)
    path.chmod(mode)
    call.say(f"Wrote {path}" + (f"; the old one is {path.name}.bak." if old is not None else "."))


COMMAND = Command("connect", "how to point your editor or SDK at the proxy", connect, _arguments)
