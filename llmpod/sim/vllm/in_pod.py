"""Not the fake server: the program `vllm serve MODEL …` of a pod whose container starts with a script.

It is told what the real one is told, waits for one line on its standard input, which the simulator sends when the
model would be loaded by its clock, and then becomes the fake server.
"""

import json
import os
import sys
from collections.abc import Sequence

from llmpod.sim.command import FLAGS, VllmCommand, vllm_command
from llmpod.sim.vllm import __main__ as program


def main(argv: Sequence[str]) -> int:
    """Serve until the end; 0 when the simulator hung up before the model was loaded."""
    command = vllm_command({"image": "vllm", "entrypoint": [], "cmd": argv, "env": os.environ})
    assert command is not None, "an image of that name is always taken for vLLM"
    if not sys.stdin.readline():
        return 0
    return program.main([*flags(command), *json.loads(os.environ.get(FLAGS, "[]"))])


def flags(command: VllmCommand) -> list[str]:
    """The fake's own command line for what vLLM was told. The key is not on it: arguments are public."""
    words = ["--port", str(command.port), "--model", command.model]
    words += ["--served-model-name", command.served_name, "--max-model-len", str(command.max_model_len)]
    return words + (["--enable-auto-tool-choice"] if command.auto_tools else [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
