"""`app keys`: who may come in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from app.config import Settings
from app.core.database.database import Database
from app.core.database.place import postgres
from app.core.database.upgrade import check
from app.core.errors import UnknownKey
from app.core.keys import terms
from app.core.keys.key import Key
from app.core.keys.repository import IssuedKey, KeyRepository

T = TypeVar("T")

_ID = re.compile(r"(?:cs_)?(?P<id>[0-9a-f]{16})")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@click.group()
def keys() -> None:
    """API keys: each lets one tenant in, a user's project."""


@keys.command("issue")
@click.option("--user", required=True, help="Whose key it is: 1 to 128 printable characters, no slash.")
@click.option("--project", required=True, help="The project of that user; the same.")
@click.option("--label", default="", help="What it is for; shown by `list`.")
@click.option("--expires", help="When it ends: 90d, 12h, 4w, or a date or time (ISO 8601; UTC without a zone).")
@as_json
@click.pass_obj
def issue(settings: Settings, user: str, project: str, label: str, expires: str | None, *, as_json: bool) -> None:
    """Make a key and print it. It is shown this once and kept nowhere."""
    try:
        tenant = terms.tenant(user, project)
        ends = terms.end(expires, datetime.now(UTC)) if expires is not None else None
        checked = terms.label(label)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    key, kept = with_keys(settings, lambda keys: keys.issue(tenant, checked, ends))
    if as_json:
        _print({"changed": True, "key": key.reveal(), **_shown(kept)})
    else:
        click.echo(key.reveal())
        until = f" until {_when(ends)}" if ends else ""
        click.echo(f"key {kept.id} of {tenant}{until}; it is not shown again", err=True)


@keys.command("list")
@click.option("--user", help="Only this user's.")
@click.option("--project", help="Only this project's; with --user.")
@as_json
@click.pass_obj
def list_keys(settings: Settings, user: str | None, project: str | None, *, as_json: bool) -> None:
    """The keys without their secrets, oldest first."""
    if project is not None and user is None:
        raise click.UsageError("--project is one of a --user.")
    found = with_keys(settings, lambda keys: keys.list(user, project))
    if as_json:
        _print({"changed": False, "keys": [_shown(key) for key in found]})
    else:
        _table([_shown(key) for key in found])


@keys.command("revoke")
@click.argument("key")
@as_json
@click.pass_obj
def revoke(settings: Settings, key: str, *, as_json: bool) -> None:
    """End KEY, the id that `list` shows. Workers that have just seen it let it in for API_KEY_CACHE_SECONDS more."""
    # a whole key is understood too: who finds a leaked one has nothing else, and it ends with this
    whole, id_ = Key.parse(key), _ID.fullmatch(key)
    if whole is None and id_ is None:
        raise click.UsageError("a key's id is 16 hexadecimal digits, as `app keys list` shows it.")
    name = whole.id if whole else id_["id"] if id_ else ""
    done = with_keys(settings, lambda keys: keys.revoke(name))
    if done is None:
        raise UnknownKey(f"There is no key {name}.", hint="`app keys list` shows them all.")
    if as_json:
        _print({"changed": done.changed, **_shown(done.key)})
    else:
        said = "revoked" if done.changed else f"was revoked before, at {_when(done.key.revoked_at)}"
        click.echo(f"key {done.key.id} of {done.key.tenant} {said}")


def with_keys(settings: Settings, work: Callable[[KeyRepository], Awaitable[T]]) -> T:
    """Do it with the keys in PostgreSQL."""

    async def connected() -> T:
        with postgres(settings) as url:
            await asyncio.to_thread(check, url, None)
            database = Database(url, 1, settings.database_timeout_seconds)
            try:
                return await work(KeyRepository(database))
            finally:
                await database.close()

    return asyncio.run(connected())


def _shown(key: IssuedKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "user": key.tenant.user_id,
        "project": key.tenant.project_id,
        "label": key.label,
        "created_at": _when(key.created_at),
        "expires_at": _when(key.expires_at),
        "revoked_at": _when(key.revoked_at),
        "state": key.state(datetime.now(UTC)),
    }


def _when(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if moment else None


def _print(answer: dict[str, Any]) -> None:
    click.echo(json.dumps(answer))


def _table(rows: Sequence[dict[str, Any]]) -> None:
    columns = ("id", "user", "project", "state", "created_at", "expires_at", "revoked_at", "label")
    lines = [
        [name.removesuffix("_at") for name in columns],
        *([str(row[name] or "") for name in columns] for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
