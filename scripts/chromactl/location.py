"""Naming a database: http(s)://host:port, path:/dir, snapshot:/dir, file.json, or a bare existing path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from chromactl.errors import UsageError

FORMS = "http://host:port, https://host, path:/dir, snapshot:/dir or file.json"


class Kind(Enum):
    """The sorts of store there are."""

    HTTP = "http"
    DIRECTORY = "path"
    SNAPSHOT = "snapshot"
    JSON = "json"


DATABASES = (Kind.HTTP, Kind.DIRECTORY)
"""The kinds that can be changed after they were made; the others are files, complete or not there."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a database is. `text` is its canonical form, without secrets, fit for logs and reports."""

    kind: Kind
    text: str
    path: Path | None = None


NOWHERE = Location(Kind.DIRECTORY, "no target", Path("/dev/null/no target"))
"""Where a dry run goes that is only about its source; nothing can ever be there."""


def parse(text: str) -> Location:
    """Read a database's name.

    Raises:
        UsageError: it has none of the forms above, or it carries a password.

    """
    scheme = text.partition(":")[0].lower()
    if scheme in ("http", "https"):
        return Location(Kind.HTTP, _http(text))
    if scheme == "path":
        return _file(Kind.DIRECTORY, text.partition(":")[2], text)
    if scheme == "snapshot":
        return _file(Kind.SNAPSHOT, text.partition(":")[2], text)
    if "://" in text:
        _refuse_password(text)
        raise UsageError(f"{text}: no database can be named like this; use {FORMS}")
    path = Path(text)
    if path.suffix == ".json":
        return _file(Kind.JSON, text, text)
    if path.is_dir():
        kind = Kind.SNAPSHOT if (path / "manifest.json").exists() else Kind.DIRECTORY
        return _file(kind, text, text)
    raise UsageError(f"{text}: there is no such folder, and no other database is named like this; use {FORMS}")


def _file(kind: Kind, path: str, text: str) -> Location:
    if not path:
        raise UsageError(f"{text}: the path is missing; use {FORMS}")
    absolute = Path(path).expanduser().resolve()
    prefix = "" if kind is Kind.JSON else f"{kind.value}:"
    return Location(kind, f"{prefix}{absolute}", absolute)


def _refuse_password(text: str) -> None:
    # Before anything else is looked at, so that no other message repeats the URL with its secret.
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise UsageError(
            "a database URL must not carry a user or password: it would end in logs and process lists; "
            "give the token in a file (--…-token-file) or in the environment"
        )


def _http(text: str) -> str:
    _refuse_password(text)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text}: not a URL ({error}); use {FORMS}") from error
    if not parts.hostname:
        raise UsageError(f"{text}: the host is missing; use {FORMS}")
    if parts.query or parts.fragment:
        raise UsageError(f"{text}: a database URL has no ? or #; use --tenant and --database")
    if port is None:
        port = 443 if parts.scheme.lower() == "https" else 8000
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}:{port}{parts.path.rstrip('/')}"
