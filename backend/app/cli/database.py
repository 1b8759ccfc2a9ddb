"""`app database`: the schema in PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

import click

from app.cli.keys import as_json
from app.config import Settings
from app.core.database.place import postgres
from app.core.database.upgrade import check, missing, set_dimension, upgrade


@click.group()
def database() -> None:
    """The schema in PostgreSQL."""


@database.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Only say what is missing.")
@as_json
@click.pass_obj
def upgrade_schema(settings: Settings, *, dry_run: bool, as_json: bool) -> None:
    """Bring the schema to what this version needs. Running versions of the service go on working.

    One that is newer already is left as it is. Whoever comes second waits for the first.
    """
    with postgres(settings, as_it_is=True) as url:
        done = missing(url) if dry_run else upgrade(url, settings.embedding_dimension)
        version = None if dry_run and done else check(url, settings.embedding_dimension)
    text = f"{'missing' if dry_run else 'upgraded'}: {', '.join(done)}" if done else f"up to date ({version})"
    _say({"changed": bool(done), "upgraded": done, "version": version}, text, as_json=as_json)


@database.command("check")
@as_json
@click.pass_obj
def check_schema(settings: Settings, *, as_json: bool) -> None:
    """See whether the schema has what this version needs; exit code 3 when not. Changes nothing."""
    with postgres(settings, as_it_is=True) as url:
        version = check(url, settings.embedding_dimension)
    _say({"changed": False, "version": version}, f"up to date ({version})", as_json=as_json)


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
    with postgres(settings, as_it_is=True) as url:
        done = set_dimension(url, dimension)
    click.echo(f"embeddings have dimension {dimension}" if done else "nothing to do")


def _say(answer: dict[str, Any], text: str, *, as_json: bool) -> None:
    click.echo(json.dumps(answer) if as_json else text)
