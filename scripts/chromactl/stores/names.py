"""The names of work collections: those a run imports into, and those it keeps of what was there before."""

from __future__ import annotations

import re

LONGEST_NAME = 512 - len("--before-20260101T000000-000000")
"""Characters that a collection's name may have, so that what it is kept under has the 512 that servers allow."""

_WORK = re.compile(r"--(m|before-)\d{8}T\d{6}-[0-9a-f]{6}$")


def staged_name(name: str, run: str) -> str:
    """Where a run imports the collection `name`, beside the live one."""
    return f"{name}--m{run}"


def before_name(name: str, run: str) -> str:
    """What the collection that a run replaced is called afterwards."""
    return f"{name}--before-{run}"


def is_work_collection(name: str) -> bool:
    """Whether a run made this collection for itself; such are never migrated, searched or counted."""
    return _WORK.search(name) is not None
