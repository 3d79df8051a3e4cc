"""Not the network: which files a model on the hub has, by what its API says, and which of them a server needs. Pure.

The names are a stranger's: one that could lead out of its directory refuses the whole model.
"""

import fnmatch
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpod.errors import BadSpec, ProviderUnavailable
from llmpod.text import one_line

_MOST_BYTES = 2**50
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMS = (".safetensors", ".bin", ".pt", ".gguf")
"""Weights that servers load, in the order in which vLLM looks for them; only the first that is there is fetched."""
_OTHERS = (".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".npz", ".mlmodel")
_COPIES = "original/*"  # Meta's and OpenAI's: the same weights again
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")


@dataclass(frozen=True, slots=True)
class RepoFile:
    """One file: its name, its size in bytes, and the digest that its bytes must have.

    Args:
        digest: SHA-256 in 64 hex digits (large files), or git's SHA-1 of a blob in 40. It names the file in the cache.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files of one commit."""

    id: str
    commit: str
    files: tuple[RepoFile, ...]


def snapshot(repo_id: str, page: Mapping[str, Any]) -> Snapshot:
    """What the API's answer with ``blobs=true`` says.

    Raises:
        ProviderUnavailable: it lacks sizes or digests, or names a file that nobody should write.
    """
    commit, siblings = page.get("sha"), page.get("siblings")
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit) or not isinstance(siblings, list):
        raise ProviderUnavailable(f"The hub's answer about {repo_id} names no commit or no files.")
    return Snapshot(repo_id, commit, tuple(_file(repo_id, entry) for entry in siblings))


def _file(repo_id: str, entry: object) -> RepoFile:
    about: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    lfs, name = about.get("lfs"), about.get("rfilename")
    large, digest = (True, lfs.get("sha256")) if isinstance(lfs, dict) else (False, about.get("blobId"))
    size = about.get("size")
    if not isinstance(name, str) or not _is_safe(name):
        raise ProviderUnavailable(
            f"{repo_id} names a file {one_line(str(name), 80)!r}, which is not written anywhere."
        )
    form = _SHA256 if large else _COMMIT
    if not isinstance(digest, str) or not form.fullmatch(digest):
        raise ProviderUnavailable(f"The hub does not tell the digest of {name} in {repo_id}.")
    if type(size) is not int or not 0 <= size <= _MOST_BYTES:
        raise ProviderUnavailable(f"The hub does not tell the size of {name} in {repo_id}.")
    return RepoFile(name, size, digest)


def _is_safe(name: str) -> bool:
    """Whether it is a path below its directory on every system."""
    if not name.isprintable() or "\\" in name or len(name.encode("utf-8", "replace")) > 1000:
        return False
    return all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in name.split("/"))


def needed(whole: Snapshot, patterns: Collection[str] = ()) -> tuple[RepoFile, ...]:
    """What a server loads: all that is no weights, and of the weights one form.

    Args:
        whole: all files.
        patterns: shell-style; just the files that match one of them.

    Raises:
        BadSpec: none match, there are no weights, or it must be said which of them are meant.
    """
    if patterns:
        named = tuple(f for f in whole.files if any(fnmatch.fnmatchcase(f.name, p) for p in patterns))
        if not named:
            raise BadSpec(f"{whole.id} has no file like {', '.join(patterns)}.", hint=_shown(whole.files))
        return named
    rest = [f for f in whole.files if not f.name.endswith((*_FORMS, *_OTHERS))]
    return (*rest, *_weights(whole))


def _weights(whole: Snapshot) -> Sequence[RepoFile]:
    found = [f for f in whole.files if not fnmatch.fnmatchcase(f.name, _COPIES)]
    for form in _FORMS:
        weights = [f for f in found if f.name.endswith(form)]
        if any("/" not in f.name for f in weights):
            if form == ".gguf" and len({_SHARD.sub("", f.name) for f in weights}) > 1:
                raise BadSpec(
                    f"{whole.id} holds several models as GGUF.",
                    hint=f"Say which: --include '*{weights[0].name[-12:]}'. {_shown(weights)}",
                )
            return weights
    raise BadSpec(f"{whole.id} has no weights of a known form.", hint=f"Use --include. {_shown(whole.files)}")


def _shown(files: Sequence[RepoFile]) -> str:
    more = f" and {len(files) - 10} more" if len(files) > 10 else ""
    return f"It has {', '.join(f.name for f in files[:10])}{more}."
