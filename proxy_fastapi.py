#!/usr/bin/env python3
"""Not the proxy itself: its entry point. See ``python3 proxy_fastapi.py --help`` and llmpod/proxy."""

import sys
from pathlib import Path

from llmpod._venv import reexec_in_venv

if __name__ == "__main__":
    reexec_in_venv(Path(__file__))
    from llmpod.proxy import serve

    sys.exit(serve.run(sys.argv[1:], home=Path(__file__).resolve().parent))
