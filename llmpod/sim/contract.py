"""Not the published specification, but written by hand from it: which bodies the pod routes accept.

What the schema refuses is 422; what only the handler knows (gpu xor cpu, one kind of mount) is 400.
tests/sim/test_openapi_agreement.py compares the first half with RunPod's own schema on generated bodies.
"""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from llmpod.sim.problems import Problem, invalid
from llmpod.sim.schema import (
    Check,
    array,
    integer,
    kind,
    mapping,
    missing,
    of_kind,
    one_of,
    record,
    string,
    unexpected,
)

_VERSION = r"^\d+\.\d+$"
_text = string()
_flag = of_kind("boolean")
_NETWORK = record({"volumeId": _text, "path": _text}, "volumeId", "path")
_MOUNTS = record(
    {
        "persistent": record({"size": integer(least=10), "path": _text}, "size", "path"),
        "network": array(_NETWORK, most=1),
    }
)
_GPU = record(
    {
        "id": _text,
        "count": integer(least=1),
        "allowedCudaVersions": array(string(pattern=_VERSION)),
        "minCudaVersion": string(pattern=_VERSION),
        "minRamPerGpu": integer(least=1),
        "minVcpuCountPerGpu": integer(least=1),
    },
    "id",
)
_CPU = record({"id": string(least=1), "vcpuCount": integer(least=2)}, "id", "vcpuCount")
_CONTAINER: dict[str, Check] = {
    "image": _text,
    "args": _text,
    "cmd": array(_text),
    "entrypoint": array(_text),
    "disk": integer(least=1),
    "env": mapping(_text),
    "ports": array(_text),
    "registry": of_kind("string", "null"),
}
_CREATE: dict[str, Check] = {
    "name": string(least=1),
    "cloud": one_of("SECURE", "COMMUNITY"),
    "cpu": _CPU,
    "dataCenterIds": array(_text),
    "globalNetworking": _flag,
    "gpu": _GPU,
    "mounts": _MOUNTS,
    "startJupyter": _flag,
    "startSsh": _flag,
    "templateId": string(least=1),
}
_UPDATE: dict[str, Check] = {
    "globalNetworking": _flag,
    "locked": _flag,
    "mounts": _MOUNTS,
    "name": string(least=1),
    "templateId": _text,
}
_ACTION = record({"action": one_of("start", "stop", "restart", "terminate")}, "action")
_NEWER = ("cmd", "entrypoint")  # unknown to servers of before September 2026


def check_create(body: Any, *, old: bool = False) -> None:
    """Raises Problem 422 for what the schema of a create request refuses."""
    _check(body, _CREATE, ("name",), old=old)
    if "templateId" not in body and "image" not in body:
        raise invalid("$: missing property 'image'")


def check_update(body: Any, *, old: bool = False) -> None:
    """Raises Problem 422 for what the schema of an update refuses."""
    _check(body, _UPDATE, (), old=old)


def check_action(body: Any) -> str:
    """The action. Raises Problem 422."""
    errors = tuple(_ACTION(body, "$"))
    if errors:
        raise invalid(*errors)
    return str(body["action"])


def check_rules(body: Mapping[str, Any], *, create: bool) -> None:
    """Raises Problem 400 for what a handler refuses although the schema allows it."""
    if create and ("gpu" in body) == ("cpu" in body):
        raise Problem(400, "exactly one of gpu or cpu must be set")
    mounts = body.get("mounts") or {}
    if mounts.get("persistent") and mounts.get("network"):
        raise Problem(400, "mounts.persistent and mounts.network are mutually exclusive")
    gpu = body.get("gpu") or {}
    if gpu.get("allowedCudaVersions") and gpu.get("minCudaVersion"):
        raise Problem(400, "gpu.allowedCudaVersions and gpu.minCudaVersion are mutually exclusive")
    ports = body.get("ports") or []
    if sum(port.endswith("/http") for port in ports) > 10:
        raise Problem(400, "at most 10 HTTP ports can be exposed")
    if len(body.get("env") or {}) > 50:
        raise Problem(400, "at most 50 environment variables can be set")
    if body.get("args") and ("cmd" in body or "entrypoint" in body) and not _same_command(body):
        raise Problem(400, "args contradicts cmd or entrypoint")


def command_of(args: str) -> tuple[list[str] | None, list[str] | None]:
    """(entrypoint, cmd) of the stored string form: words, or a JSON object. None: the image's own."""
    try:
        value = json.loads(args)
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value.get("entrypoint"), value.get("cmd")
    try:
        return None, shlex.split(args) or None
    except ValueError:  # an unbalanced quote is a word like any other
        return None, args.split() or None


def args_of(entrypoint: list[str] | None, cmd: list[str] | None) -> str:
    """The stored string form of a command."""
    if entrypoint:
        return json.dumps({"entrypoint": entrypoint, "cmd": cmd or []})
    return shlex.join(cmd) if cmd else ""


def _same_command(body: Mapping[str, Any]) -> bool:
    entrypoint, cmd = command_of(body["args"])
    return (entrypoint or []) == (body.get("entrypoint") or []) and (cmd or []) == (body.get("cmd") or [])


def _check(body: Any, own: dict[str, Check], required: tuple[str, ...], *, old: bool) -> None:
    if not isinstance(body, dict):
        raise invalid(f"$: got {kind(body)}, want object")
    container = {name: check for name, check in _CONTAINER.items() if not (old and name in _NEWER)}
    errors = list(missing(body, "$", *required))
    stray = [name for name in body if name not in container and name not in own]
    for part, lacks in ((container, False), (own, bool(errors))):
        wrong = [
            error for name, check in part.items() if name in body for error in check(body[name], f"$.{name}")
        ]
        errors += wrong
        if wrong or lacks:  # the server's validator then takes the part's valid fields for unknown ones, too
            stray += [name for name in body if name in part]
    errors += unexpected(stray, "$")
    if errors:
        raise invalid(*errors)
