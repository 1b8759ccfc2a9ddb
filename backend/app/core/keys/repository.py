"""Keys in PostgreSQL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update

from app.core.database.database import Database
from app.core.database.schema import api_keys
from app.core.keys.key import Key
from app.core.memory.tenant import Tenant

_NOTHING = bytes(32)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """What is known of a key: everything but its secret."""

    id: str
    tenant: Tenant
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def state(self, now: datetime) -> str:
        """valid, expired or revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that does not let anybody in any more; `changed` when it did until now."""

    key: IssuedKey
    changed: bool


@dataclass(frozen=True, slots=True)
class Admission:
    """Whom a key lets in, and for how many seconds from now at most."""

    tenant: Tenant
    seconds_left: float


class KeyRepository:
    """Issue, list, revoke and look up keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, tenant: Tenant, label: str = "", expires_at: datetime | None = None) -> tuple[Key, IssuedKey]:
        """A new key for the tenant, and what is kept of it. Its secret is in the answer and nowhere else."""
        key = Key.new()
        values = {
            "id": key.id,
            "secret_hash": key.hash(),
            "user_id": tenant.user_id,
            "project_id": tenant.project_id,
            "label": label,
            "expires_at": expires_at,
        }
        async with self._database.begin() as connection:
            row = (await connection.execute(insert(api_keys).values(values).returning(*api_keys.c))).one()
        return key, _issued(row)

    async def list(self, user: str | None = None, project: str | None = None) -> list[IssuedKey]:
        """Every key, or those of a user or of a project, oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        for column, name in ((api_keys.c.user_id, user), (api_keys.c.project_id, project)):
            if name is not None:
                query = query.where(column == name)
        async with self._database.begin() as connection:
            return [_issued(row) for row in await connection.execute(query)]

    async def revoke(self, key_id: str) -> Revocation | None:
        """End the key; None when there is none of this id."""
        async with self._database.begin() as connection:
            found = (
                await connection.execute(select(api_keys).where(api_keys.c.id == key_id).with_for_update())
            ).first()
            if found is None:
                return None
            if found.revoked_at is not None:
                return Revocation(_issued(found), changed=False)
            statement = update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=func.now())
            row = (await connection.execute(statement.returning(*api_keys.c))).one()
            return Revocation(_issued(row), changed=True)

    async def admit(self, key: Key) -> Admission | None:
        """Whom this key lets in; None when it is unknown, wrong, expired or revoked."""
        valid = api_keys.c.revoked_at.is_(None) & (
            api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > func.now())
        )
        # by PostgreSQL's clock, which is the same for all
        left = func.extract("epoch", api_keys.c.expires_at - func.now()).label("seconds_left")
        query = select(api_keys, left).where(api_keys.c.id == key.id, valid)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).first()
        # compared also when there is none: the time tells nothing about ids
        right = key.matches(row.secret_hash if row is not None else _NOTHING)
        if row is None or not right:
            return None
        return Admission(
            Tenant(row.user_id, row.project_id), math.inf if row.seconds_left is None else float(row.seconds_left)
        )


def _issued(row: Row[Any]) -> IssuedKey:
    return IssuedKey(
        id=row.id,
        tenant=Tenant(row.user_id, row.project_id),
        label=row.label,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
