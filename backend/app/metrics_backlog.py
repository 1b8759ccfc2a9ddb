"""What only PostgreSQL knows: how much waits for the index. Asked when somebody wants the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import URL

from app import VERSION
from app.metrics import PREFIX

KEEP_SECONDS = 3.0
MAX_WAIT_SECONDS = 1.0
# A backlog is counted up to here: counting all of one of ten millions would take longer than anybody waits.
MOST = 1_000_000

_ASK = f"""
    SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT {MOST}) o),
           (SELECT extract(epoch FROM now() - created_at) FROM outbox ORDER BY id LIMIT 1),
           (SELECT count(*) FROM (SELECT FROM dead_letters LIMIT {MOST}) d)
"""  # noqa: S608 (a number of our own)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that wait, the seconds that the oldest has waited, dead letters."""

    events: int
    oldest_seconds: float
    dead_letters: int


class BacklogWatch:
    """Asks on a connection of its own, so that it is answered while every other one is in use."""

    def __init__(self, url: URL, clock: Callable[[], float] = time.monotonic) -> None:
        self._dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: Backlog | None = None
        self._until = float("-inf")

    async def backlog(self) -> Backlog | None:
        """As it was at most a few seconds ago; None while PostgreSQL does not answer."""
        async with self._lock:
            if self._clock() >= self._until:
                self._known = await self._ask()
                self._until = self._clock() + KEEP_SECONDS
            return self._known

    async def _ask(self) -> Backlog | None:
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                connection = await psycopg.AsyncConnection.connect(
                    self._dsn,
                    autocommit=True,
                    application_name="chroma-stack metrics",
                    options=f"-c statement_timeout={round(MAX_WAIT_SECONDS * 1000)}",
                )
                async with connection:
                    row = await (await connection.execute(_ASK)).fetchone()
        except (psycopg.Error, OSError, TimeoutError):
            return None
        return Backlog(row[0], float(row[1] or 0), row[2]) if row is not None else None


def metrics_of(backlog: Backlog | None) -> Iterator[Metric]:
    """In Prometheus's form, with what this is; what is not known is absent."""
    info = GaugeMetricFamily(f"{PREFIX}_build_info", "Always 1; the labels say what runs.", labels=["version"])
    info.add_metric([VERSION], 1)
    yield info
    yield _gauge("postgres_up", "Whether PostgreSQL answers (1) or not (0).", backlog is not None)
    if backlog is not None:
        yield _gauge("outbox_events", f"Changes that the index does not know yet, up to {MOST}.", backlog.events)
        yield _gauge("outbox_oldest_event_age_seconds", "How long the oldest of them waits.", backlog.oldest_seconds)
        yield _gauge("dead_letters", f"Changes that were given up, up to {MOST}.", backlog.dead_letters)


def _gauge(name: str, help_: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_, value=value)
