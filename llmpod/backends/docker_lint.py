"""Not a compose parser: what is wrong with an existing container for being started and stopped by us.

The engine tells what a compose file has made of the container: its ports, its restart policy, and in labels which
file and service it came from. Only `profiles` must be read off the file, and only where that has the plain form that
people write; nothing is guessed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LABEL = "com.docker.compose."
_OPEN = ("", "0.0.0.0", "::")  # noqa: S104 - what is looked for
_ENDLESS = ("always", "unless-stopped")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to change, and what to write instead. ``fatal``: it cannot work so."""

    text: str
    mend: str
    fatal: bool = False


def compose_file(found: Mapping[str, Any]) -> str:
    """The file that a container was made from, as the engine knows it; empty: from none, or from several."""
    files = str(_labels(found).get(f"{_LABEL}project.config_files") or "")
    return "" if "," in files else files


def findings(found: Mapping[str, Any], name: str, port: int, text: str | None) -> Iterator[Finding]:
    """What should be otherwise.

    Args:
        found: the engine's answer about the container (``GET /containers/NAME/json``).
        name: what the configuration calls it.
        port: where the configuration expects it on this machine.
        text: its compose file; None: it cannot be read here.
    """
    labels, host = _labels(found), _mapping(found.get("HostConfig"))
    service = str(labels.get(f"{_LABEL}service") or "")
    project = str(labels.get(f"{_LABEL}project") or "")
    if service and re.fullmatch(rf"{re.escape(project)}[-_]{re.escape(service)}[-_]\d+", name):
        yield Finding(
            f"{name} is a name that compose made up: it goes with the directory's name",
            f"container_name: {service}",
        )
    if host.get("NetworkMode") != "host":
        yield from _ports(host, port)
    policy = str(_mapping(host.get("RestartPolicy")).get("Name") or "")
    if policy in _ENDLESS:
        yield Finding(f"`restart: {policy}` starts it without an order, as after a reboot", 'restart: "no"')
    if service and text is not None and has_profiles(text, service) is False:
        yield Finding(
            f"`docker compose up` starts the service {service} without an order: it has no profile",
            f"profiles: [{service}]",
        )


def _ports(host: Mapping[str, Any], port: int) -> Iterator[Finding]:
    bound = [
        (str(inside).partition("/")[0], str(at.get("HostIp") or ""), str(at.get("HostPort") or ""))
        for inside, ats in _mapping(host.get("PortBindings")).items()
        for at in (ats if isinstance(ats, list) else [])
        if isinstance(at, dict)
    ]
    here = [(inside, address) for inside, address, outside in bound if outside == str(port)]
    if not here:
        others = ", ".join(outside for _, _, outside in bound if outside) or "none"
        inside = bound[0][0] if bound else "8000"
        told = f"port {port} is not published (published: {others})"
        yield Finding(told, f'ports: ["127.0.0.1:{port}:{inside}"]', fatal=True)
    for inside, address in here:
        if address in _OPEN:
            told = f"port {port} is open to other machines, past llmpod and its keys"
            yield Finding(told, f'ports: ["127.0.0.1:{port}:{inside}"]')


def has_profiles(text: str, service: str) -> bool | None:
    """Whether a service of a compose file has profiles; None where the file is of another form than is read here."""
    services = _below(text.splitlines(), "services")
    block = _below(services, service) if services else None
    if not block or any(line.strip().startswith(("<<:", "extends:")) for line in block):
        return None
    level = min(map(_depth, block))
    return any(_depth(line) == level and _is_key(line, "profiles") for line in block)


def _below(lines: Sequence[str], key: str) -> Sequence[str]:
    """The lines below a key of these lines' outermost level; none where it does not stand on a line of its own."""
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not kept or any("\t" in line[: len(line) - len(line.lstrip())] for line in kept):
        return ()
    level = min(map(_depth, kept))
    starts = [n for n, line in enumerate(kept) if _depth(line) == level]
    ends = [*starts[1:], len(kept)]
    for start, end in zip(starts, ends, strict=True):
        if _is_key(kept[start], key) and re.search(r":\s*(#.*)?$", kept[start]):
            return kept[start + 1 : end]
    return ()


def _is_key(line: str, key: str) -> bool:
    return re.match(rf"[\"']?{re.escape(key)}[\"']?\s*:", line.strip()) is not None


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _labels(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(_mapping(found.get("Config")).get("Labels"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
