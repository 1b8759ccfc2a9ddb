"""`app keys ensure`: a file with a key that lets in, for who is no person: a playbook, a program, a test."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from app.cli.keys import keys, with_keys
from app.config import Settings
from app.core.errors import KeyFileUnusable
from app.core.keys import terms
from app.core.keys.key import Key
from app.core.keys.repository import KeyRepository
from app.core.memory.tenant import Tenant

MAX_BYTES = 4096
ANOTHER = "Move it away, or name another file."


@keys.command("ensure")
@click.option("--user", required=True, help="Whose key it is.")
@click.option("--project", required=True, help="The project of that user.")
@click.option("--label", default="", help="What it is for; shown by `list`.")
@click.option(
    "--file", "path", required=True, type=click.Path(path_type=Path), help="The file; its owner alone may read it."
)
@click.option("--dry-run", is_flag=True, help="Only say whether a key would be made.")
@click.option("--json", "as_json", is_flag=True, help='Print one object: {"changed": …}.')
@click.pass_obj
def ensure(settings: Settings, user: str, project: str, label: str, path: Path, dry_run: bool, as_json: bool) -> None:
    """Have a file hold a key of this tenant: what is there is kept as long as it lets in. The key is not shown."""
    try:
        tenant = terms.tenant(user, project)
        checked = terms.label(label)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None

    async def work(issued: KeyRepository) -> bool:
        if await _lets_in(issued, path, tenant):
            return False
        if not dry_run:
            with _replacing(path) as file:
                key, _ = await issued.issue(tenant, checked)
                file.write_text(f"{key.reveal()}\n", encoding="ascii")
        return True

    changed = with_keys(settings, work)
    if as_json:
        click.echo(json.dumps({"changed": changed}))
    else:
        click.echo(f"{'would make' if dry_run else 'made'} {path}" if changed else f"{path} lets in")


async def _lets_in(issued: KeyRepository, path: Path, tenant: Tenant) -> bool:
    """Whether the file holds a valid key of the tenant; KeyFileUnusable where it is somebody else's."""
    try:
        text = path.read_bytes()[:MAX_BYTES].decode("ascii", errors="replace").strip()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KeyFileUnusable(f"{path} cannot be read: {error.strerror}.", hint=ANOTHER) from None
    key = Key.parse(text)
    if key is None and text:
        raise KeyFileUnusable(f"{path} holds something that is no key; it is left as it is.", hint=ANOTHER)
    admission = await issued.admit(key) if key is not None else None
    found = admission.tenant if admission is not None else None
    if found is not None and found != tenant:
        raise KeyFileUnusable(f"{path} holds a valid key of {found}, not of {tenant}.", hint=ANOTHER)
    return found is not None


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file, closed to others, that takes the place of the path when the block ends well.

    It is there before a key is issued, so that no key is issued that cannot be kept.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise KeyFileUnusable(f"{path} cannot be written: {error.strerror}.") from None
