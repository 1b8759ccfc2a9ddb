"""`app keys`: who may come in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from app.config import Settings
from app.core.database.database import Database
from app.core.keys.repository import KeyRepository
from app.core.memory.tenant import Tenant
from app.startup import postgres

T = TypeVar("T")


@click.group()
def keys() -> None:
    """API keys: each lets one tenant in, a user's project."""


@keys.command("issue")
@click.option("--user", required=True, help="Whose key it is.")
@click.option("--project", required=True, help="The project of that user.")
@click.option("--label", default="", help="What it is for; shown by `list`.")
@click.pass_obj
def issue(settings: Settings, user: str, project: str, label: str) -> None:
    """Make a key and print it. It is shown this once and kept nowhere."""
    key = with_keys(settings, lambda keys: keys.issue(Tenant(user, project), label))
    click.echo(key.reveal())


def with_keys(settings: Settings, work: Callable[[KeyRepository], Awaitable[T]]) -> T:
    """Do it with the keys in PostgreSQL."""

    async def connected() -> T:
        with postgres(settings) as url:
            database = Database(url, 1, settings.database_timeout_seconds)
            try:
                return await work(KeyRepository(database))
            finally:
                await database.close()

    return asyncio.run(connected())
