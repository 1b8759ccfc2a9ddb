"""Keeping the process small: what the C library does for speed costs a migration a third of its memory."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


def keep_small() -> None:
    """Let threads share heaps instead of keeping one each; for before the first thread starts. Only glibc has this."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
