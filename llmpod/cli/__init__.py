"""Not the lifecycle: the commands of ``manage_pod.py``, their wiring and what they print."""

from llmpod.cli.main import main

__all__ = ["main"]
