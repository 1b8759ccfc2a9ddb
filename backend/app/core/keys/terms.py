"""What a key may be issued for: the names of its tenant, its label, its end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from app.core.memory.tenant import Tenant

MAX_NAME = 128
MAX_LABEL = 200
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SPAN = re.compile(r"([0-9]{1,6})([hdw])")


def tenant(user: str, project: str) -> Tenant:
    """The tenant of these names, stored as given. Raises ValueError for a name that cannot be one."""
    return Tenant(_name("user", user), _name("project", project))


def label(text: str) -> str:
    """The label; ValueError when it is too long or does not fit on a line."""
    if len(text) > MAX_LABEL:
        raise ValueError(f"the label has {len(text)} characters; {MAX_LABEL} are the most")
    if not text.isprintable():
        raise ValueError("the label has a character that cannot be printed")
    return text


def end(text: str, now: datetime) -> datetime:
    """When a key ends: `90d`, `12h`, `4w` from now, or a date or time in ISO 8601, in UTC if it names no zone.

    Raises ValueError, also for what is past.
    """
    try:
        span = _SPAN.fullmatch(text.strip())
        if span is not None:
            moment = now + int(span[1]) * _UNITS[span[2]]
        else:
            moment = datetime.fromisoformat(text.strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("that is no time; give 90d, 12h, 4w, or 2027-01-31 or 2027-01-31T12:00:00+01:00") from None
    if moment <= now:
        raise ValueError(f"{moment.isoformat()} is past")
    return moment


def _name(what: str, text: str) -> str:
    if not 0 < len(text) <= MAX_NAME:
        raise ValueError(f"a {what} has 1 to {MAX_NAME} characters, not {len(text)}")
    if "/" in text:  # X-Tenant: user/project names one tenant and no other
        raise ValueError(f"a {what} has no slash in it")
    if not text.isprintable() or text != text.strip():
        raise ValueError(f"a {what} has no space before or after it, and nothing that cannot be printed")
    return text
