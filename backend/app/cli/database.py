"""`app database`: the schema in PostgreSQL."""

from __future__ import annotations

import click

from app.config import Settings
from app.core.database.upgrade import upgrade
from app.startup import postgres


@click.group()
def database() -> None:
    """The schema in PostgreSQL."""


@database.command("upgrade")
@click.pass_obj
def upgrade_schema(settings: Settings) -> None:
    """Bring the schema to what this version needs. Running versions of the service go on working."""
    with postgres(settings) as url:
        done = upgrade(url, settings.embedding_dimension)
    click.echo(f"upgraded: {', '.join(done)}" if done else "up to date")
