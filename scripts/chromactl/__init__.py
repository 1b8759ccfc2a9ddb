"""chromactl: move, prove and keep ChromaDB data."""

from __future__ import annotations

__version__ = "0.1.0"
