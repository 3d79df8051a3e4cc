"""Not the cache itself: where a model's server will look for its weights, or why nothing can be put there from here.

Hugging Face's libraries find their cache by HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME, in this order
(huggingface_hub's documentation, "Environment variables"); vLLM's ``--download-dir`` stands above them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from llmpod.config import Config, DockerSection, PodConfig
from llmpod.config.children import MODEL_COMMAND
from llmpod.config.server_args import option
from llmpod.errors import BadSpec

_ANYWHERE = "`--cache-dir DIR` downloads to a directory of your choice."


def place_of(config: Config, model: PodConfig, environ: Mapping[str, str]) -> Path:
    """The cache of a model's server, on this machine.

    Args:
        config: the installation.
        model: one of its models.
        environ: the environment of this program, of which servers see a part.

    Raises:
        BadSpec: there is none that could be written from here; the message says what happens instead.
    """
    home = config.path.parent
    if model.process is not None and model.backend == "process":
        known = {name: environ[name] for name in MODEL_COMMAND if name in environ} | {**model.process.env}
        return _of_command(model.process.command, known, model.process.cwd or home)
    if model.slurm is not None and model.backend == "slurm":
        known = {"HOME": environ.get("HOME", "")} | {**model.slurm.env}
        return _of_command(model.slurm.command, known, home)
    if model.docker is not None and model.backend == "docker":
        return _of_container(model.docker)
    raise BadSpec(_elsewhere(model), hint=_ANYWHERE)


def _elsewhere(model: PodConfig) -> str:
    """Why there is no cache of this backend's server on this machine, and what happens instead."""
    if model.backend == "demo":
        return "Nothing to download: the demo's model is made up."
    if model.backend == "static":
        return "Nothing to download from here: somebody else runs this server."
    if model.backend == "runpod_serverless":
        return (
            "Nothing to download from here: the endpoint's workers fetch the model. In RunPod's console, name it as"
            " the endpoint's cached model, so that they find it on their machine."
        )
    if model.network_volume_id:
        return (
            "Nothing to download from here: the first pod fetches the model onto the network volume"
            f" {model.network_volume_id}, and later ones find it there."
        )
    return (
        "Nothing to download from here: each pod fetches the model in its data center (`plan` says how long that"
        " takes). With `network_volume_id`, later pods find what the first one has fetched."
    )


def _of_command(command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> Path:
    place = option(command, "--download-dir") or hub_cache(environ)
    if place is None:
        raise BadSpec("Neither HF_HOME nor HOME says where the server keeps models.", hint=_ANYWHERE)
    return cwd / place


def _of_container(section: DockerSection) -> Path:
    """The mounted directory that holds the container's cache. Raises BadSpec."""
    if section.container is not None:
        raise BadSpec(f"What `{section.container}` mounts is its compose file's.", hint=_ANYWHERE)
    environ = {"HOME": "/root", **section.env}  # vLLM's image runs as root
    inside = PurePosixPath(option(section.command, "--download-dir") or hub_cache(environ) or "/")
    for mount in section.mounts:
        source, target, *_ = mount.split(":")
        if source.startswith("/") and inside.is_relative_to(target):
            return Path(source) / inside.relative_to(target)
    raise BadSpec(
        f"The container keeps models in {inside}, which ends with it: no directory is mounted there.",
        hint=f'Add to `docker.mounts`: "/home/me/.cache/huggingface:{inside.parent}".',
    )


def hub_cache(environ: Mapping[str, str]) -> str | None:
    """Where Hugging Face's libraries keep models in this environment; None: nobody says."""
    for name, below in (
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ):
        if value := environ.get(name):
            return str(PurePosixPath(value) / below)
    return None
