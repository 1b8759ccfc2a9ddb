"""`app database`: the schema in PostgreSQL."""

from __future__ import annotations

import json

import click

from app.config import Settings
from app.core.database.upgrade import missing, upgrade
from app.startup import postgres


@click.group()
def database() -> None:
    """The schema in PostgreSQL."""


@database.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Only say what is missing.")
@click.option("--json", "as_json", is_flag=True, help='Print one object: {"changed": …, "upgraded": […]}.')
@click.pass_obj
def upgrade_schema(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Bring the schema to what this version needs. Running versions of the service go on working.

    Any number may run this at once: the first one does it, the others wait and find it done.
    """
    with postgres(settings) as url:
        done = missing(url) if dry_run else upgrade(url, settings.embedding_dimension)
    if as_json:
        click.echo(json.dumps({"changed": bool(done), "upgraded": done}))
    elif done:
        click.echo(f"{'missing' if dry_run else 'upgraded'}: {', '.join(done)}")
    else:
        click.echo("up to date")
