"""Who may import whom, as one table. Not the check itself: that is tests/support/rules.py.

Patterns are shell-style (`*` also crosses dots). A module belongs to the FIRST row whose pattern matches it,
so an exception stands above the rule it is taken from. The picture behind the table is docs/architecture.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Part:
    """What one part of the house may lean on."""

    ours: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    sync: bool = False

    def may_use(self, module: str) -> bool:
        return any(fnmatchcase(module, pattern) for pattern in self.ours)


_NOUNS = (
    "llmpod",
    "llmpod.errors",
    "llmpod.model",
    "llmpod.bounded",
    "llmpod.identity",
    "llmpod.sockets",
    "llmpod.memo",
    "llmpod.nocore",
    "llmpod.places",
    "llmpod.secret",
    "llmpod.text",
    "llmpod.veil",
    "llmpod.web",
)
_SETTINGS = (*_NOUNS, "llmpod.config", "llmpod.config.*")
_BACKEND = (*_SETTINGS, "llmpod.backends")
_LOCAL = (*_BACKEND, "llmpod.backends.machines", "llmpod.backends.local_port")
_LIFECYCLE = (*_SETTINGS, "llmpod.backends", "llmpod.lifecycle", "llmpod.lifecycle.*")
_REQUESTS = (
    "requests",
    "urllib3",
)  # urllib3 is its transport: retries, and errors that requests lets through
_PROXY_LIBRARIES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx")

PARTS: Mapping[str, Part] = {
    # the entry points stay thin: argv in, exit code out
    "manage_pod": Part(ours=("llmpod._venv", "llmpod.cli", "llmpod.cli.*")),
    "proxy_fastapi": Part(
        ours=("llmpod._venv", "llmpod.cli", "llmpod.cli.*", "llmpod.proxy", "llmpod.proxy.*")
    ),
    "llmpod._venv": Part(sync=True),  # runs before any library can be imported: the standard library alone
    # the nouns
    "llmpod": Part(),
    "llmpod.errors": Part(sync=True),
    "llmpod.memo": Part(sync=True),
    "llmpod.model": Part(ours=("llmpod.errors",), sync=True),
    "llmpod.bounded": Part(sync=True),
    "llmpod.sockets": Part(sync=True),
    "llmpod.identity": Part(ours=("llmpod.model",), sync=True),
    "llmpod.nocore": Part(sync=True),
    "llmpod.places": Part(sync=True),
    "llmpod.secret": Part(sync=True),
    "llmpod.veil": Part(ours=("llmpod.secret",), sync=True),
    "llmpod.text": Part(sync=True),
    "llmpod.web": Part(ours=("llmpod.places",), libraries=_REQUESTS, sync=True),
    "llmpod.config*": Part(ours=_SETTINGS, libraries=("pydantic", "pydantic_core"), sync=True),
    # the control plane: synchronous, so that a pass can be read from top to bottom and killed anywhere
    "llmpod.backends.runpod_serverless*": Part(
        ours=(*_LOCAL, "llmpod.backends.runpod_*"), libraries=_REQUESTS, sync=True
    ),
    "llmpod.backends.runpod_*": Part(
        ours=(*_BACKEND, "llmpod.backends.runpod_*", "llmpod.backends.hub*", "llmpod.backends.vram"),
        libraries=_REQUESTS,
        sync=True,
    ),
    "llmpod.backends.process*": Part(ours=(*_LOCAL, "llmpod.backends.process*"), sync=True),
    "llmpod.backends.docker*": Part(ours=(*_LOCAL, "llmpod.backends.docker*"), sync=True),
    "llmpod.backends.slurm*": Part(ours=(*_LOCAL, "llmpod.backends.slurm*"), sync=True),
    "llmpod.backends.static": Part(ours=_LOCAL, sync=True),
    "llmpod.backends.hub*": Part(ours=(*_BACKEND, "llmpod.backends.hub*"), libraries=_REQUESTS, sync=True),
    "llmpod.backends.*": Part(ours=_BACKEND, libraries=_REQUESTS, sync=True),
    "llmpod.backends": Part(ours=(*_BACKEND, "llmpod.backends.*"), sync=True),
    "llmpod.lifecycle.proxy_warden": Part(
        sync=True
    ),  # a program of its own that imports nothing but the system
    "llmpod.lifecycle.notify*": Part(ours=_LIFECYCLE, libraries=_REQUESTS, sync=True),
    "llmpod.lifecycle.probe*": Part(ours=_LIFECYCLE, libraries=_REQUESTS, sync=True),
    "llmpod.lifecycle*": Part(ours=_LIFECYCLE, sync=True),
    # the data plane: never a backend, never a provider; of the manager only the files between the planes
    "llmpod.cache*": Part(
        ours=("llmpod", "llmpod.errors", "llmpod.memo", "llmpod.cache", "llmpod.cache.*"),
        libraries=("aiofiles", "redis"),
    ),
    "llmpod.observe*": Part(
        ours=(
            "llmpod",
            "llmpod.errors",
            "llmpod.memo",
            "llmpod.text",
            "llmpod.veil",
            "llmpod.observe",
            "llmpod.observe.*",
        ),
        libraries=("prometheus_client",),
    ),
    "llmpod.proxy*": Part(
        ours=(
            *_SETTINGS,
            "llmpod.observe",
            "llmpod.observe.*",
            "llmpod.cache",
            "llmpod.cache.*",
            "llmpod.lifecycle.share",
            "llmpod.lifecycle.tally",
            "llmpod.proxy",
            "llmpod.proxy.*",
        ),
        libraries=_PROXY_LIBRARIES,
    ),
    # what stands apart
    "llmpod.client.routes": Part(
        ours=("llmpod", "llmpod.errors", "llmpod.client", "llmpod.client.*"),
        libraries=("fastapi", "starlette", "httpx"),
    ),
    "llmpod.client*": Part(
        ours=("llmpod", "llmpod.errors", "llmpod.client", "llmpod.client.*"), libraries=("httpx",)
    ),
    "llmpod.sim*": Part(ours=("llmpod.sim", "llmpod.sim.*"), libraries=("fastapi", "starlette", "uvicorn")),
    # wiring: everything but the inside of the proxy and of the cache
    "llmpod.__main__": Part(ours=("llmpod.cli", "llmpod.cli.*"), sync=True),
    # `cache why` makes keys as the proxy does: by its models, its callers and its forms, not by a second list
    "llmpod.cli.cache_*": Part(
        ours=(
            *_LIFECYCLE,
            *(
                "llmpod.proxy.ask",
                "llmpod.proxy.hits",
                "llmpod.proxy.route",
                "llmpod.proxy.ways_in",
                "llmpod.cache",
            ),
            *("llmpod.cli", "llmpod.cli.*"),
        ),
        libraries=("rich",),
        sync=True,
    ),
    "llmpod.cli*": Part(
        ours=(
            *_LIFECYCLE,
            "llmpod.backends.*",
            "llmpod.observe",
            "llmpod.observe.*",
            "llmpod.client",
            "llmpod.client.*",
            "llmpod.sim",
            "llmpod.sim.*",
            "llmpod.proxy",
            "llmpod.cache",
            "llmpod.cli",
            "llmpod.cli.*",
        ),
        libraries=("rich",),
        sync=True,
    ),
}


def part_of(module: str) -> Part | None:
    """The row a module belongs to, or None for a module that nobody has given a place yet."""
    return next((part for pattern, part in PARTS.items() if fnmatchcase(module, pattern)), None)
