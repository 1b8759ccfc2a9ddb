"""A user without privileges, for tests of what may not be written: for root every folder is writable."""

from __future__ import annotations

import os

NOBODY = 65534


def unprivileged() -> int | None:
    """The user id that a child process must take; None when this process is nobody special already."""
    return NOBODY if os.geteuid() == 0 else None
