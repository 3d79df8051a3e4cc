"""Not a start: ``doctor``'s look at the existing container that the configuration names, and at its compose file."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from llmpod.backends.docker_existing import ExistingContainer
from llmpod.backends.docker_lint import compose_file, findings
from llmpod.cli.checks import Check, Site, ok, problem, warning
from llmpod.cli.providers import backend_of
from llmpod.errors import LlmpodError
from llmpod.secret import Secret

_MOST_BYTES = 2**20


def container(site: Site) -> Iterator[Check]:
    """Names, ports, restart policy and profiles; nothing where no existing container is named."""
    section = site.config.common.docker
    if site.config.common.backend != "docker" or section is None or section.container is None:
        return
    backend = backend_of(site.config, Secret("", "nowhere: none is needed"))
    assert isinstance(backend, ExistingContainer)
    try:
        found = backend.inspect()
    except LlmpodError as e:
        yield problem("container", e.message, e.hint or site.edit)
        return
    finally:
        backend.close()
    file = compose_file(found)
    wrong = list(findings(found, section.container, section.port or 0, _text(file)))
    for finding in wrong:
        mend = f"{finding.mend}   # in {file or 'what the container is made from'}, then make it anew"
        yield (problem if finding.fatal else warning)("container", finding.text, mend)
    if not wrong:
        yield ok("container", f"{section.container} is there and can be started and stopped by orders alone")


def _text(file: str) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        path = Path(file)
        if file and path.stat().st_size <= _MOST_BYTES:
            return path.read_text(encoding="utf-8")
    return None
