"""The chroma-stack service: FastAPI workers that search ChromaDB."""

from __future__ import annotations

SERVICE = "chroma-stack-api"
VERSION = "0.1.0"
