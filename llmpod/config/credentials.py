"""Not a vault: finds the RunPod key and keeps it from being printed.

Order: $RUNPOD_API_KEY_FILE, $CREDENTIALS_DIRECTORY/runpod_api_key (systemd LoadCredential), $RUNPOD_API_KEY,
``~/.config/llmpod/runpod_api_key``, ``~/.runpod/config.toml`` (what ``runpodctl config`` writes).
"""

import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from llmpod.errors import BadCredentials, ConfigError
from llmpod.secret import Secret


class Missing(Secret):
    """No key where one is wanted.

    Args:
        why: raised by who would have to send it.
    """

    __slots__ = ("why",)

    def __init__(self, why: BadCredentials) -> None:
        super().__init__("", "nowhere")
        self.why = why


NO_KEY = Secret("", "nowhere: none is needed")
SECRET_VARIABLES = ("RUNPOD_API_KEY", "HF_TOKEN")
"""Environment variables whose values are secret."""
_RUNPOD = ("runpod", "runpod_serverless", "demo")


def key_file(environ: Mapping[str, str]) -> Path:
    """Where the key is looked for when no variable names it."""
    base = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "~")).expanduser() / ".config")
    return Path(base) / "llmpod" / "runpod_api_key"


def runpod_key(environ: Mapping[str, str]) -> Secret:
    """The RunPod API key.

    Raises:
        BadCredentials: there is none, it is malformed, or its file may be read by others.
    """
    for secret in _candidates(environ):
        return _checked(secret)
    raise BadCredentials(
        "There is no RunPod API key.",
        hint=f"Export RUNPOD_API_KEY, or put the key alone into {key_file(environ)} and `chmod 600` it"
        " (cron needs the file). Without a key, `make run` shows the free demo.",
    )


def provider_key(backends: Collection[str], environ: Mapping[str, str]) -> Secret:
    """The key that the providers of an installation's models want.

    An empty one where none wants any, and where it is missing but some can do without: theirs go on, and every call
    for one of the others says why it has no key.

    Raises:
        BadCredentials: all of them want one; see :func:`runpod_key`.
    """
    if not any(map(needs_key, backends)):
        return NO_KEY
    try:
        return runpod_key(environ)
    except BadCredentials as e:
        if all(map(needs_key, backends)):
            raise
        return Missing(e)


def needs_key(backend: str) -> bool:
    """Whether a backend's provider wants a key."""
    return backend in _RUNPOD


def has_runpod_key(environ: Mapping[str, str]) -> bool:
    """Whether any source holds a key, good or bad."""
    return next(_candidates(environ), None) is not None


def _candidates(environ: Mapping[str, str]) -> Iterator[Secret]:
    if path := environ.get("RUNPOD_API_KEY_FILE"):
        yield _from_file(Path(path).expanduser(), must_exist=True)
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        yield from _existing(Path(directory) / "runpod_api_key")
    if value := environ.get("RUNPOD_API_KEY"):
        yield Secret(value, "$RUNPOD_API_KEY")
    yield from _existing(key_file(environ))
    yield from _from_runpodctl(environ)


def _existing(path: Path) -> Iterator[Secret]:
    if path.exists():
        yield _from_file(path, must_exist=False)


def read_private(path: Path) -> str:
    """Read a file that nobody else may read.

    Raises:
        BadCredentials: unreadable, or readable by group or others.
    """
    try:
        mode = path.stat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadCredentials(f"Others may read {path}.", hint=f"Run: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise BadCredentials(f"Cannot read {path}: {e}.", hint="Name a readable file with the key.") from None


def _from_file(path: Path, *, must_exist: bool) -> Secret:
    if must_exist and not path.exists():
        raise BadCredentials(f"RUNPOD_API_KEY_FILE names {path}, which does not exist.")
    return Secret(read_private(path), str(path))


def _from_runpodctl(environ: Mapping[str, str]) -> Iterator[Secret]:
    path = Path(environ.get("HOME", "~")).expanduser() / ".runpod" / "config.toml"
    if not path.exists():
        return
    try:
        document = tomllib.loads(read_private(path))
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path} is not valid TOML: {e}.") from None
    for name in ("apikey", "api_key"):
        if isinstance(value := document.get(name), str) and value:
            yield Secret(value, str(path))
            return


def _checked(secret: Secret) -> Secret:
    value = secret.reveal().strip()
    if not value:
        raise BadCredentials(f"The RunPod API key from {secret.source} is empty.")
    if len(value) < 8 or any(c.isspace() or not c.isascii() or not c.isprintable() for c in value):
        raise BadCredentials(
            f"What {secret.source} holds is not a RunPod API key ({len(value)} characters).",
            hint="A key looks like rpa_… and stands alone, without quotes or spaces.",
        )
    return Secret(value, secret.source)
