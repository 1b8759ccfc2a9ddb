"""From a database's name to a store that reads or takes records."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import SecretStr

from chromactl.errors import UsageError
from chromactl.location import DATABASES, Kind, Location
from chromactl.stores.base import Database, Source, Target
from chromactl.stores.directory import DirectoryStore
from chromactl.stores.http import HttpStore
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.json_file import JsonStore, JsonTarget
from chromactl.stores.snapshot import SnapshotStore, SnapshotTarget
from chromactl.stores.transport import Network


@dataclass(frozen=True, slots=True)
class Access:
    """How to get into a database: its name, the token if it wants one, tenant and database.

    `side` is the word that this database's options begin with (source, target, …), for error messages.
    `create_database` makes a missing database of an existing tenant, where it is a target.
    """

    location: Location
    side: str
    token: SecretStr | None = None
    tenant: str = "default_tenant"
    database: str = "default_database"
    network: Network = field(default_factory=Network)
    create_database: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """What makes two accesses the same database: location, tenant, database."""
        return self.location.text, self.tenant, self.database


def open_source(access: Access) -> Source:
    """The database as something to read. Nothing is ever written to it.

    Raises:
        PreconditionError: it is not there, not a ChromaDB, or refuses the token.
        LockedError: it is a directory that another process has open.
    """
    path = access.location.path
    if path is None:
        return HttpStore(
            access.location.text,
            token=access.token,
            tenant=access.tenant,
            database=access.database,
            side=access.side,
            network=access.network,
        )
    if access.location.kind is Kind.SNAPSHOT:
        return SnapshotStore(path)
    if access.location.kind is Kind.JSON:
        return JsonStore(path)
    return _directory(access, writable=False)


def open_target(access: Access, source: str) -> Target:
    """The database as something to import into; `source` is noted in a snapshot's manifest.

    Raises:
        PreconditionError, LockedError: as in `open_source`; and a snapshot or file that exists already.
    """
    path = access.location.path
    if path is None:
        return HttpTarget(
            access.location.text,
            token=access.token,
            tenant=access.tenant,
            database=access.database,
            side=access.side,
            network=access.network,
            create_database=access.create_database,
        )
    if access.location.kind is Kind.SNAPSHOT:
        return SnapshotTarget(path, source)
    if access.location.kind is Kind.JSON:
        return JsonTarget(path)
    return _directory(access, writable=True)


def open_database(access: Access, *, only_look: bool = False) -> Database:
    """The server or directory as something to change; to `only_look`, a copy of the directory.

    Raises:
        UsageError: it is a snapshot or a file, which are never changed.
        PreconditionError, LockedError: as in `open_source`.
    """
    if access.location.kind not in DATABASES:
        raise UsageError(f"{access.location.text}: never changed once it is complete; name a server or a directory")
    if only_look and access.location.kind is Kind.DIRECTORY:
        return _directory(access, writable=False)
    target = open_target(access, "")
    assert isinstance(target, HttpTarget)  # noqa: S101 (of these kinds there is no other)
    return target


def _directory(access: Access, *, writable: bool) -> DirectoryStore:
    assert access.location.path is not None  # noqa: S101 (the two callers have just looked)
    return DirectoryStore(
        access.location.path,
        writable=writable,
        tenant=access.tenant,
        database=access.database,
        side=access.side,
        network=access.network,
        create_database=writable and access.create_database,
    )
