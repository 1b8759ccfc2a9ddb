"""Loggers are everybody's: put back as they were."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("", "app", "uvicorn", "uvicorn.error", "uvicorn.asgi", "uvicorn.access", "httpx")


@contextmanager
def loggers_as_they_were() -> Iterator[None]:
    """Whatever the block does to the service's loggers is undone at its end."""
    before = [(logging.getLogger(name), logging.getLogger(name).__dict__.copy()) for name in NAMES]
    before = [(logger, {**kept, "handlers": list(kept["handlers"])}) for logger, kept in before]
    try:
        yield
    finally:
        for logger, kept in before:
            logger.__dict__.update(kept)
            logger.manager._clear_cache()  # type: ignore[attr-defined]
