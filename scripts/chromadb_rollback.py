#!/usr/bin/env python3
"""The runbooks' name for `chromactl rollback`; every option is the same."""

from __future__ import annotations

import sys

try:
    from chromactl.cli import main
except ModuleNotFoundError as error:
    sys.stderr.write(f"{error}: run `make setup` once, then this script with .venv/bin/python\n")
    sys.exit(3)

if __name__ == "__main__":
    sys.argv.insert(1, "rollback")
    main()
