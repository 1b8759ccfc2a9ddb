"""`app`: what an operator does with the service beside serving. One module a group of commands."""

from __future__ import annotations

from app.cli.main import main

__all__ = ["main"]
