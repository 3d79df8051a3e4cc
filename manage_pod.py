#!/usr/bin/env python3
"""Thin: argv -> llmpod.cli -> exit code. Works with any python3; the packages come from .venv (`make install`)."""

import sys
from pathlib import Path

from llmpod._venv import reexec_in_venv

if __name__ == "__main__":
    reexec_in_venv(Path(__file__))
    from llmpod.cli import main

    sys.exit(main(sys.argv[1:]))
