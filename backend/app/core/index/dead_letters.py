"""Dead letters: records that were given up, so that the index does not hold what they are now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.database.database import Database
from app.core.database.schema import dead_letters, outbox
from app.core.errors import UnknownLetter
from app.core.index.outbox import notify
from app.core.memory.tenant import Kind, Tenant

AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that was given up. `error` may quote what was refused."""

    id: int
    memory_id: int
    tenant: Tenant
    kind: Kind
    operation: str
    attempts: int
    error: str
    created_at: datetime
    failed_at: datetime


@dataclass(frozen=True, slots=True)
class Selection:
    """Which: those of these ids, or every one; of one tenant (`user/project`), or of all."""

    ids: Sequence[int] | None = None
    tenant: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As a query takes it."""
        found: list[ColumnElement[bool]] = []
        if self.ids is not None:
            found.append(dead_letters.c.id.in_(self.ids))
        if self.tenant is not None:
            found.append(dead_letters.c.user_id + "/" + dead_letters.c.project_id == self.tenant)
        return found


class DeadLetters:
    """List, replay and drop dead letters. A record that is indexed later loses its dead letter by itself."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self, selection: Selection, limit: int) -> tuple[int, list[Letter]]:
        """How many there are, and the oldest of them."""
        conditions = selection.conditions()
        count = select(func.count()).select_from(dead_letters).where(*conditions)
        query = select(dead_letters).where(*conditions).order_by(dead_letters.c.id).limit(limit)
        async with self._database.begin() as connection:
            total = (await connection.execute(count)).scalar_one()
            return total, [_letter(row) for row in await connection.execute(query)]

    async def replay(self, selection: Selection) -> int:
        """Have them tried again, from the first attempt on; how many. Raises UnknownLetter, and replays none then."""
        return await self._take(selection, again=True)

    async def drop(self, selection: Selection) -> int:
        """Forget them; how many. The index stays as it is. Raises UnknownLetter, and drops none then."""
        return await self._take(selection, again=False)

    async def _take(self, selection: Selection, *, again: bool) -> int:
        total = 0
        while True:
            async with self._database.begin() as connection:
                if selection.ids is not None:
                    await _check(connection, selection)
                taken = await _slice(connection, selection, again=again)
            total += taken
            if taken < AT_ONCE or selection.ids is not None:
                return total


async def _check(connection: AsyncConnection, selection: Selection) -> None:
    query = select(dead_letters.c.id).where(*selection.conditions()).with_for_update()
    known = set((await connection.execute(query)).scalars())
    if missing := [str(id_) for id_ in selection.ids or () if id_ not in known]:
        raise UnknownLetter(f"There is no dead letter {', '.join(missing[:10])}.", hint="See: app dead-letters list")


async def _slice(connection: AsyncConnection, selection: Selection, *, again: bool) -> int:
    chosen = select(dead_letters.c.id).where(*selection.conditions()).order_by(dead_letters.c.id)
    if selection.ids is None:
        chosen = chosen.limit(AT_ONCE)
    names = ["memory_id", "user_id", "project_id", "kind"]
    columns = [dead_letters.c[name] for name in names]
    taken = delete(dead_letters).where(dead_letters.c.id.in_(chosen)).returning(*columns).cte("taken")
    counted = select(func.count()).select_from(taken)
    if again:
        events = select(*[taken.c[name] for name in names], literal("replay"))
        counted = counted.add_cte(insert(outbox).from_select([*names, "operation"], events).cte("events"))
    number = int((await connection.execute(counted)).scalar_one())
    if again:
        await notify(connection)
    return number


def _letter(row: Any) -> Letter:
    return Letter(
        id=row.id,
        memory_id=row.memory_id,
        tenant=Tenant(row.user_id, row.project_id),
        kind=row.kind,
        operation=row.operation,
        attempts=row.attempts,
        error=row.last_error,
        created_at=row.created_at,
        failed_at=row.failed_at,
    )
