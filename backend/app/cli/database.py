"""`app database`: the schema in PostgreSQL."""

from __future__ import annotations

import click

from app.config import Settings
from app.core.database.upgrade import set_dimension, upgrade
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


@database.command("set-dimension")
@click.argument("dimension", type=click.IntRange(1, 16000))
@click.option("--yes", is_flag=True, help="Every stored embedding may go.")
@click.pass_obj
def change_dimension(settings: Settings, dimension: int, *, yes: bool) -> None:
    """Keep embeddings of this dimension, for another model. Stored ones of another go: `app rebuild` makes them anew.

    Stop the index workers first; then set EMBEDDING_DIMENSION, run `app rebuild`, and start everything again.
    """
    if not yes:
        raise click.UsageError("every stored embedding of another dimension will be removed; add --yes if it may be.")
    with postgres(settings) as url:
        done = set_dimension(url, dimension)
    click.echo(f"embeddings have dimension {dimension}" if done else "nothing to do")
