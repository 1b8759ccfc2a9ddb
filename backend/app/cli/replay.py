"""`app replay`: bring an older index up to date."""

from __future__ import annotations

import click

from app.cli.connected import json_option, say, with_database
from app.config import Settings
from app.core.index.replay import MARGIN, Replay


@click.command()
@click.option("--since", required=True, metavar="TIME", help="2026-11-20T09:15Z, or how long ago: 90m, 2h, 3d, 1w.")
@click.option("--user", help="Only what is this user's.")
@click.option("--project", help="Only what belongs to projects of this name.")
@json_option
@click.pass_obj
def replay(settings: Settings, since: str, user: str | None, project: str | None, as_json: bool) -> None:
    """Have the index workers do again what was changed or deleted since TIME.

    For an index that is older than the memories: after a rollback, or from a backup. Take a time at which that index
    had caught up (no events waited). Doing it twice is harmless.
    """
    done = with_database(
        settings, lambda database: Replay(database, settings.index_tombstone_days).since(since, user, project)
    )
    if done.deletions_forgotten:
        click.echo(
            f"Deletions are remembered for INDEX_TOMBSTONE_DAYS={settings.index_tombstone_days} days, and that is not "
            "long enough. What was deleted before may come back; run: app rebuild",
            err=True,
        )
    moment = done.since.isoformat(timespec="seconds")
    result = {
        "changed": done.memories + done.deletions > 0,
        "memories": done.memories,
        "deletions": done.deletions,
        "deletions_forgotten": done.deletions_forgotten,
        "since": moment,
    }
    margin = f"{MARGIN.total_seconds():.0f} s"
    say(as_json, f"{done.memories} memories and {done.deletions} deletions since {moment} (with {margin} more)", result)
