"""A command's way to PostgreSQL, and its words on stdout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import click

from app.config import Settings
from app.core.database.database import Database
from app.core.database.place import postgres
from app.core.database.upgrade import check

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def with_database(settings: Settings, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do it with the database, whose schema is known to fit. Raises StartupError, DatabaseUnavailable."""

    async def connected() -> T:
        with postgres(settings) as url:
            await asyncio.to_thread(check, url, settings.embedding_dimension)
            database = Database(url, 1, settings.database_timeout_seconds)
            try:
                return await work(database)
            finally:
                await database.close()

    return asyncio.run(connected())


def say(as_json: bool, line: str, result: Mapping[str, Any]) -> None:
    """The line for people, or the object for programs."""
    click.echo(json.dumps(result) if as_json else line)


def printable(text: str) -> str:
    """The text without what would do something to a terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
