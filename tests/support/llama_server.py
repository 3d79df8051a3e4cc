"""Not a fake: runs the real server of llama.cpp, out of the wheel `xllamacpp`, until SIGTERM.

It is started by the Python that has that package (scripts/components puts one into .components), never by the
project's own. The key comes by LLAMA_API_KEY, as for llama.cpp's own program.
"""

import argparse
import importlib
import os
import signal
import sys


def main() -> None:
    """Serve one model on one address."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--alias", required=True, help="what clients call it")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # its threads, too, leave it to this one
    llama = importlib.import_module("xllamacpp")
    params = llama.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_ctx = 0  # as much as the model has
    params.cpuparams.n_threads = 1
    params.ui = False
    if key := os.environ.get("LLAMA_API_KEY"):
        params.api_keys = [key]
    server = llama.Server(params)
    sys.stderr.write(f"listening at {server.listening_address}\n")
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    main()
