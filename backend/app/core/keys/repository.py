"""Keys in PostgreSQL."""

from __future__ import annotations

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


class KeyRepository:
    """Issue, list, revoke and look up keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, tenant: Tenant, label: str = "", expires_at: datetime | None = None) -> Key:
        """A new key for the tenant. Its secret is in the answer and nowhere else."""
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
            await connection.execute(insert(api_keys).values(values))
        return key

    async def list(self, tenant: Tenant | None = None) -> list[IssuedKey]:
        """Every key, or those of one tenant, oldest first."""
        query = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)
        if tenant is not None:
            query = query.where(api_keys.c.user_id == tenant.user_id, api_keys.c.project_id == tenant.project_id)
        async with self._database.begin() as connection:
            return [_issued(row) for row in await connection.execute(query)]

    async def revoke(self, key_id: str) -> bool | None:
        """End the key. False when it was revoked before, None when there is none of this id."""
        async with self._database.begin() as connection:
            found = (
                await connection.execute(select(api_keys).where(api_keys.c.id == key_id).with_for_update())
            ).first()
            if found is None or found.revoked_at is not None:
                return None if found is None else False
            await connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=func.now()))
            return True

    async def tenant_of(self, key: Key) -> Tenant | None:
        """The tenant that this key lets in; None when it is unknown, wrong, expired or revoked."""
        valid = api_keys.c.revoked_at.is_(None) & (
            api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > func.now())
        )
        query = select(api_keys).where(api_keys.c.id == key.id, valid)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).first()
        # compared also when there is none: the time tells nothing about ids
        right = key.matches(row.secret_hash if row is not None else _NOTHING)
        return Tenant(row.user_id, row.project_id) if row is not None and right else None


def _issued(row: Row[Any]) -> IssuedKey:
    return IssuedKey(
        id=row.id,
        tenant=Tenant(row.user_id, row.project_id),
        label=row.label,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
