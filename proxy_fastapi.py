#!/usr/bin/env python3
"""Not the proxy itself: its entry point. See ``python3 proxy_fastapi.py --help`` and llmpod/proxy."""

import sys
from pathlib import Path

from llmpod._venv import reexec_in_venv

if __name__ == "__main__":
    reexec_in_venv(Path(__file__))
    from llmpod.proxy import serve

    home, arguments = Path(__file__).resolve().parent, sys.argv[1:]
    if "--" in arguments:
        from llmpod.cli import ondemand

        sys.exit(ondemand.run(arguments, home=home, serve=serve.on_demand))
    sys.exit(serve.run(arguments, home=home))
