"""`python -m chromactl`."""

from __future__ import annotations

from chromactl.cli import main

if __name__ == "__main__":
    main()
