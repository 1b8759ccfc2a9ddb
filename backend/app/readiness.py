"""Whether this process can serve: for load balancers, which send requests elsewhere while it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from functools import partial

from sqlalchemy import text

from app.core.chroma.deadline import within
from app.core.chroma.session import Session
from app.core.database.database import Database
from app.core.database.upgrade import check
from app.core.errors import ChromaUnavailable, Overloaded, SchemaUnfit, StartupError
from app.limits import Threads

CHROMA_SECONDS = 1.0


class Readiness:
    """Looks at PostgreSQL, its schema (once it fits, it goes on fitting) and Chroma."""

    def __init__(
        self,
        database: Database,
        dimension: int,
        fits: asyncio.Event,
        sessions: Collection[Session],
        threads: Threads,
        *,
        needs_chroma: bool,
    ) -> None:
        self._database = database
        self._dimension = dimension
        self._sessions = sessions
        self._threads = threads
        self._needs_chroma = needs_chroma
        self._fits = fits

    async def look(self) -> ChromaUnavailable | None:
        """What is wrong with Chroma, if anything.

        Raises DatabaseUnavailable, DatabaseTooSlow, SchemaUnfit; ChromaUnavailable where searches need Chroma.
        """
        _, trouble = await asyncio.gather(self._look_at_database(), self._look_at_chroma())
        if trouble is not None and self._needs_chroma:
            raise trouble
        return trouble

    async def _look_at_database(self) -> None:
        # whoever is busy is there: other workers would not help
        with suppress(Overloaded):
            async with self._database.begin() as connection:
                await connection.execute(text("SELECT 1"))
        if not self._fits.is_set():
            try:
                await self._threads.run(partial(check, self._database.url, self._dimension))
            except StartupError as error:
                raise SchemaUnfit(error.message, hint=error.hint) from None
            self._fits.set()

    async def _look_at_chroma(self) -> ChromaUnavailable | None:
        try:
            for session in self._sessions:
                await self._threads.run(partial(_heartbeat, session))
        except ChromaUnavailable as error:
            return error
        return None


def _heartbeat(session: Session) -> None:
    with within(CHROMA_SECONDS):
        session.answer(lambda client: client.heartbeat())
