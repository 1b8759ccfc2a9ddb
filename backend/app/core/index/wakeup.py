"""When there may be something to index: PostgreSQL says so, or it is time to look anyway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque

import psycopg
from sqlalchemy import URL

from app.core.database.database import CONNECT_SECONDS
from app.core.index.outbox import CHANNEL

log = logging.getLogger(__name__)

RECONNECT_SECONDS = 2.0


class Wakeup:
    """Wakes one sleeper for each notice of new events. While PostgreSQL cannot be heard, only time wakes them."""

    def __init__(self, url: URL) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._noticed = False
        self._ended = asyncio.Event()

    async def listen(self) -> None:
        """Listen until cancelled, connecting again when the connection is lost."""
        while True:
            with contextlib.suppress(psycopg.Error, OSError):
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    connect_timeout=CONNECT_SECONDS,
                    application_name="chroma-stack listen",
                    keepalives_idle=5,
                    keepalives_interval=1,
                    keepalives_count=3,
                )
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    self.wake()  # for what came while nobody listened
                    async for _ in connection.notifies():
                        self.wake()
            log.debug("not listening for events; the outbox is looked at by the clock")
            await asyncio.sleep(RECONNECT_SECONDS)

    def wake(self) -> None:
        """End one sleep: of somebody who sleeps, or else the next one."""
        while self._sleepers:
            sleeper = self._sleepers.popleft()
            if not sleeper.done():
                sleeper.set_result(None)
                return
        self._noticed = True

    def end(self) -> None:
        """End every sleep, from now on at once."""
        self._ended.set()
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    @property
    def ended(self) -> bool:
        """Whether nobody is to sleep any more."""
        return self._ended.is_set()

    async def sleep(self, seconds: float) -> None:
        """Return when woken, or after so many seconds."""
        if self._noticed or self.ended:
            self._noticed = False
            return
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append(sleeper)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sleeper
        # woken or not, who sleeps no more looks at the outbox next: no notice is lost
        with contextlib.suppress(ValueError):
            self._sleepers.remove(sleeper)

    async def rest(self, seconds: float) -> None:
        """Return after so many seconds, or when all is to end; events do not disturb."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
