"""The chroma-stack service: FastAPI workers that search ChromaDB."""

from __future__ import annotations

from importlib.metadata import version

SERVICE = "chroma-stack-api"
VERSION = version(SERVICE)
