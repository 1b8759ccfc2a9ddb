"""The gate between the outbox and one collection of the index: closed for the moment in which a rebuild swaps it.

It is made of PostgreSQL's advisory locks, which end with their session, so that a rebuild that was killed keeps nobody
out. A worker passes with a shared lock until its batch is over; it never waits, but leaves the tenants whose gate is
closed, or about to be, for a later batch. Closing waits for the batches that have passed.

There are few gates, many tenants sharing one: a batch of many tenants shall not fill PostgreSQL's table of locks.
"""

from __future__ import annotations

import psycopg

from app.core.database.direct import Connection
from app.core.memory.tenant import Kind, Tenant

# pg_advisory_lock takes two numbers of our own choosing; the first one spells "chgt".
_SPACE = 0x63686774
_GATES = 64
_WAIT = "2s"


def _gate(user: str, project: str, kind: str) -> str:
    return f"{_SPACE}, hashtext({user} || chr(1) || {project} || chr(1) || {kind}) & {_GATES - 1}"


def passes(row: str) -> str:
    """SQL: whether the collection that a row by this alias has to do with may be written to in this transaction."""
    return f"pg_try_advisory_xact_lock_shared({_gate(f'{row}.user_id', f'{row}.project_id', f'{row}.kind')})"


class Gate:
    """The gate of a tenant's records of one kind, on a connection that commits by itself."""

    def __init__(self, connection: Connection, tenant: Tenant, kind: Kind) -> None:
        self._connection = connection
        self._of = (tenant.user_id, tenant.project_id, kind)

    def close(self) -> bool:
        """Close it, and wait two seconds at most for what has passed; False when that was not enough."""
        try:
            with self._connection.transaction():
                self._connection.execute(f"SET LOCAL lock_timeout = '{_WAIT}'".encode())
                self._connection.execute(f"SELECT pg_advisory_lock({self._key})".encode(), self._of)
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    def open(self) -> None:
        """Open it again."""
        self._connection.execute(f"SELECT pg_advisory_unlock({self._key})".encode(), self._of)

    @property
    def _key(self) -> str:
        return _gate("%s::text", "%s::text", "%s::text")
