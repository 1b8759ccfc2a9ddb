"""Where PostgreSQL is: the configured one, or our own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL

from app.config import Settings
from app.core.database.database import database_url
from app.core.database.embedded import EmbeddedPostgres
from app.core.database.upgrade import upgrade


@contextmanager
def postgres(settings: Settings, *, as_it_is: bool = False) -> Iterator[URL]:
    """Where PostgreSQL is; without a DATABASE_URL one of our own is started, and ended with its last user.

    Its schema is brought up to date then, unless it is wanted as it is.
    """
    if settings.database_url is not None:
        yield database_url(settings.database_url, settings.database_password_file)
        return
    own = EmbeddedPostgres(settings.database_path)
    url = own.start()
    try:
        if not as_it_is:
            upgrade(url, settings.embedding_dimension)
        yield url
    finally:
        own.stop()
