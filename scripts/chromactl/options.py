"""Options that several commands share. Every one has an environment twin; tokens come by file or environment only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import SecretStr

from chromactl import location
from chromactl.errors import PreconditionError, UsageError
from chromactl.location import Location
from chromactl.stores.opening import Access
from chromactl.stores.transport import Network

F = TypeVar("F", bound=Callable[..., Any])


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option whose environment twin is CHROMACTL_ and its long name in capitals."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    twin = f"CHROMACTL_{long.removeprefix('--').replace('-', '_').upper()}"
    return click.option(*names, envvar=twin, show_envvar=True, **settings)


def folder(name: str, default: str, what: str) -> Callable[[F], F]:
    """An option for a folder that is made if need be; absolute, so that messages name it from anywhere."""
    return option(
        name,
        default=default,
        show_default=True,
        type=click.Path(path_type=Path, resolve_path=True, readable=False),
        help=what,
    )


def token_file(name: str, what: str) -> Callable[[F], F]:
    """An option for the file that holds a token."""
    twin = f"CHROMACTL_{name.removeprefix('--').removesuffix('-file').replace('-', '_').upper()}"
    return option(
        name, type=click.Path(path_type=Path, readable=False), help=f"File with the token of {what} (or {twin} itself)."
    )


json_option = option("--json", "as_json", is_flag=True, help="One JSON object on stdout, and no lines on stderr.")
tenant_option = option("--tenant", default="default_tenant", show_default=True, help="Tenant, on servers.")
database_option = option("--database", default="default_database", show_default=True, help="Database, on servers.")


audit_option = option(
    "--audit-file",
    type=click.Path(path_type=Path, resolve_path=True, readable=False, dir_okay=False),
    help="Who did what, and how it ended; audit.jsonl in --log-dir, if not given.",
)

_USUAL = Network()


def network_options(command: F) -> F:
    """The options of how patient to be with servers, and whom to trust; `network` takes what they give."""
    for add in (
        option(
            "--ca-file",
            type=click.Path(path_type=Path, readable=False),
            help="PEM file of a private CA, to be trusted beside the well-known ones.",
        ),
        option(
            "--max-retries",
            default=_USUAL.max_retries,
            show_default=True,
            type=click.IntRange(0),
            help="How often a request is sent again when the network or the server fails.",
        ),
        option(
            "--timeout",
            default=_USUAL.timeout_seconds,
            show_default=True,
            type=click.FloatRange(0, min_open=True),
            help="Seconds a request may take.",
        ),
    ):
        command = add(command)
    return command


def network(given: dict[str, Any]) -> Network:
    """What the values of `network_options` come to."""
    return Network(given["timeout"], given["max_retries"], given["ca_file"])


def access(
    url: str | Location,
    side: str,
    token_path: Path | None,
    tenant: str,
    database: str,
    network: Network | None = None,
    *,
    create_database: bool = False,
) -> Access:
    """How to get into the database of this name; `side` begins the names of its options.

    Raises:
        UsageError: the name is no database's, or the token holds what no header can.
        PreconditionError: the token file cannot be read, or is empty.
    """
    twin = "CHROMACTL_TOKEN" if side == "" else f"CHROMACTL_{side.replace('-', '_').upper()}_TOKEN"
    token = secret(token_path, twin, "token")
    where = location.parse(url) if isinstance(url, str) else url
    return Access(where, side, token, tenant, database, network or Network(), create_database)


def secret(path: Path | None, twin: str, kind: str) -> SecretStr | None:
    """A token or key out of a file, else out of the environment by its name there; None if it is in neither.

    Raises:
        UsageError: it holds what no header can.
        PreconditionError: the file cannot be read, or is empty.
    """
    if path is not None:
        try:
            text, where = path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else "not text"
            raise PreconditionError(
                f"{path}: this {kind} file cannot be read ({words}); check path and mode"
            ) from error
    elif twin in os.environ:
        text, where = os.environ[twin], twin
    else:
        return None
    word = text.strip()
    if not word:
        raise PreconditionError(f"{where}: the {kind} is empty; put the {kind} in, or leave the option out")
    if not word.isascii() or not word.isprintable() or " " in word:
        raise UsageError(f"{where}: a {kind} is one word of printable ASCII; this is something else")
    return SecretStr(word)
