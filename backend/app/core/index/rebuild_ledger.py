"""What a rebuild has loaded so far, kept where the records are: what is missing of it is one query.

The ledger is a temporary table of one connection. That connection also holds the lock that makes a rebuild the only
one. Both end with it, so a rebuild that was killed leaves nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.database.direct import Connection
from app.core.errors import RebuildRunning
from app.core.index import outbox
from app.core.index.gate import Gate
from app.core.index.rebuild_source import Part

# pg_try_advisory_lock takes a number of our own choosing; this one spells "chstrb".
_LOCK = 0x636873747262

_DIFFERENCE = b"""
    WITH differs AS MATERIALIZED (
        SELECT coalesce(m.id, l.id) AS id, m.id IS NULL AS gone, l.id IS NULL AS fresh
        FROM (SELECT id, xmin::text::bigint AS version FROM memory_logs
              WHERE user_id = %s AND project_id = %s AND kind = %s) m
        FULL JOIN loaded l ON l.id = m.id
        WHERE l.version IS DISTINCT FROM m.version
    )
    SELECT id, gone, fresh FROM differs d
    WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.memory_id = d.id)
    ORDER BY id
"""
_NOTE = b"""
    INSERT INTO loaded SELECT * FROM unnest(%s::bigint[], %s::bigint[])
    ON CONFLICT (id) DO UPDATE SET version = excluded.version
"""
_SAME = b"SELECT id FROM loaded JOIN unnest(%s::bigint[], %s::bigint[]) AS u (id, version) USING (id, version)"
_UNKNOWN = b"""
    SELECT id FROM unnest(%s::bigint[]) AS u (id)
    WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.memory_id = u.id)
      AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.memory_id = u.id)
"""
_REPLAY = b"""
    INSERT INTO outbox (memory_id, user_id, project_id, kind, operation)
    SELECT id, user_id, project_id, kind, 'replay' FROM memory_logs WHERE id = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Ids of records that are not loaded yet, that were loaded otherwise, and that are loaded and no more."""

    fresh: list[int]
    changed: list[int]
    gone: list[int]

    def __len__(self) -> int:
        return len(self.fresh) + len(self.changed) + len(self.gone)

    def ids(self) -> list[int]:
        """All of them."""
        return [*self.fresh, *self.changed, *self.gone]


class Ledger:
    """The ledger of one part at a time. One thread at a time uses it, and nobody else its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        if not connection.execute(b"SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchall()[0][0]:
            raise RebuildRunning(
                "Another rebuild is running on this database.", hint="Wait for its end, or end it; then run this again."
            )
        connection.execute(b"CREATE TEMPORARY TABLE loaded (id bigint PRIMARY KEY, version bigint NOT NULL)")

    def begin(self) -> None:
        """Nothing is loaded."""
        self._connection.execute(b"TRUNCATE loaded")

    def note(self, ids: Sequence[int], versions: Sequence[int]) -> None:
        """These versions of these records are loaded."""
        self._connection.execute(_NOTE, [list(ids), list(versions)])

    def forget(self, ids: Sequence[int]) -> None:
        """These are not."""
        self._connection.execute(b"DELETE FROM loaded WHERE id = ANY(%s)", [list(ids)])

    def ids(self) -> list[int]:
        """What is loaded."""
        return [row[0] for row in self._connection.execute(b"SELECT id FROM loaded").fetchall()]

    def same(self, ids: Sequence[int], versions: Sequence[int]) -> set[int]:
        """Those of these records that are loaded in this version."""
        return {row[0] for row in self._connection.execute(_SAME, [list(ids), list(versions)]).fetchall()}

    def difference(self, part: Part) -> Difference:
        """What is to be done so that what is loaded is the part as it is now.

        Records with an event in the outbox are left out: index workers bring them into whatever has the name by then.
        """
        self._connection.execute(b"ANALYZE loaded")
        of = [part.tenant.user_id, part.tenant.project_id, part.kind]
        rows = self._connection.execute(_DIFFERENCE, of).fetchall()
        return Difference(
            fresh=[id_ for id_, _, fresh in rows if fresh],
            changed=[id_ for id_, gone, fresh in rows if not gone and not fresh],
            gone=[id_ for id_, gone, _ in rows if gone],
        )

    def gate(self, part: Part) -> Gate:
        """The part's gate, closed and opened on this connection."""
        return Gate(self._connection, part.tenant, part.kind)

    def alive(self) -> None:
        """Raise when the connection, and with it what it has locked, was lost."""
        self._connection.execute(b"SELECT 1")

    def wake(self) -> None:
        """Wake the index workers."""
        self._connection.execute(f"NOTIFY {outbox.CHANNEL}".encode())

    def unknown(self, ids: Sequence[int]) -> set[int]:
        """Those of these records that neither an event nor a dead letter tells of."""
        return {row[0] for row in self._connection.execute(_UNKNOWN, [list(ids)]).fetchall()}

    def replay(self, ids: Sequence[int]) -> None:
        """Give these records an event, so that index workers try them, and dead letters tell of them in the end."""
        self._connection.execute(_REPLAY, [list(ids)])
        self.wake()
