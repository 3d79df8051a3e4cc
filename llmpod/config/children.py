"""Not a process: what of our environment a child may see. The rest, the cloud key above all, stays here."""

from collections.abc import Mapping
from typing import Final

_COMMON: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
# what a command that serves a model on this machine needs; a section's `env` adds more
MODEL_COMMAND: Final = (
    *_COMMON,
    *("LC_ALL", "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "XDG_CACHE_HOME", "HF_HOME"),
)
# a pass hands its own environment on to such a command, and looks for its settings and ways by these
A_PASS: Final = (*MODEL_COMMAND, "XDG_CONFIG_HOME", "HF_TOKEN", "DOCKER_HOST", "SLURM_CONF")
# where systemctl finds its user's manager and units (systemctl(1), systemd.unit(5))
SYSTEMD: Final = ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS")


def child_environ(environ: Mapping[str, str], *more: str) -> dict[str, str]:
    """The environment of a child whose words we read, so it speaks English.

    Args:
        environ: ours.
        more: names of variables that this program needs besides.
    """
    return {name: environ[name] for name in (*_COMMON, *more) if name in environ} | {"LC_ALL": "C"}
