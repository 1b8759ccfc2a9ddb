"""`app dead-letters`: what the index could not take."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

import click

from app.cli.connected import json_option, printable, say, with_database
from app.config import Settings
from app.core.index.dead_letters import DeadLetters, Letter, Selection

SHOWN = 100
HEAD = ("ID", "MEMORY", "TENANT", "KIND", "ATTEMPTS", "GIVEN UP", "ERROR")

tenant_option = click.option("--tenant", metavar="USER/PROJECT", help="Only those of this tenant.")
all_option = click.option("--all", "every", is_flag=True, help="Every one, or every one of the tenant.")
ids_argument = click.argument("ids", nargs=-1, type=click.IntRange(min=1))


@click.group("dead-letters")
def dead_letters() -> None:
    """Records that were given up, so that the index does not hold what they are now. PostgreSQL does."""


@dead_letters.command("list")
@tenant_option
@click.option("--limit", type=click.IntRange(1, 100_000), default=SHOWN, show_default=True, help="How many at most.")
@json_option
@click.pass_obj
def list_letters(settings: Settings, tenant: str | None, limit: int, as_json: bool) -> None:
    """Show them, oldest first, and why they were given up. The reason may quote what was refused."""
    total, letters = with_database(
        settings, lambda database: DeadLetters(database).list(Selection(tenant=tenant), limit)
    )
    lines = [*_table(letters), *([f"and {total - len(letters)} more"] if total > len(letters) else [])]
    result = {"changed": False, "total": total, "dead_letters": [_object(letter) for letter in letters]}
    say(as_json, "\n".join(lines) if letters else "There are no dead letters.", result)


@dead_letters.command("replay")
@ids_argument
@all_option
@tenant_option
@json_option
@click.pass_obj
def replay_letters(settings: Settings, ids: tuple[int, ...], every: bool, tenant: str | None, as_json: bool) -> None:
    """Have the index workers try them again, from the first attempt on."""
    selection = _selection(ids, every, tenant)
    number = with_database(settings, lambda database: DeadLetters(database).replay(selection))
    say(as_json, f"{number} dead letters are tried again", {"changed": number > 0, "replayed": number})


@dead_letters.command("drop")
@ids_argument
@all_option
@tenant_option
@json_option
@click.pass_obj
def drop_letters(settings: Settings, ids: tuple[int, ...], every: bool, tenant: str | None, as_json: bool) -> None:
    """Forget them. The index stays without these changes, until the record changes again or the index is rebuilt."""
    selection = _selection(ids, every, tenant)
    number = with_database(settings, lambda database: DeadLetters(database).drop(selection))
    say(as_json, f"{number} dead letters are dropped", {"changed": number > 0, "dropped": number})


def _selection(ids: tuple[int, ...], every: bool, tenant: str | None) -> Selection:
    if bool(ids) == every:
        raise click.UsageError("Name dead letters by their ids, or all of them with --all.")
    return Selection(None if every else ids, tenant)


def _table(letters: Sequence[Letter]) -> list[str]:
    rows = [HEAD, *(_row(letter) for letter in letters)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows
    ]
    if not sys.stdout.isatty():
        return lines
    columns = shutil.get_terminal_size().columns
    return [line if len(line) <= columns else f"{line[: columns - 1]}…" for line in lines]


def _row(letter: Letter) -> tuple[str, ...]:
    return (
        str(letter.id),
        str(letter.memory_id),
        printable(str(letter.tenant)),
        letter.kind,
        str(letter.attempts),
        letter.failed_at.isoformat(sep=" ", timespec="seconds"),
        printable(" ".join(letter.error.split())),
    )


def _object(letter: Letter) -> dict[str, object]:
    return {
        "id": letter.id,
        "memory_id": letter.memory_id,
        "user": letter.tenant.user_id,
        "project": letter.tenant.project_id,
        "kind": letter.kind,
        "operation": letter.operation,
        "attempts": letter.attempts,
        "error": letter.error,
        "created_at": letter.created_at.isoformat(),
        "failed_at": letter.failed_at.isoformat(),
    }
