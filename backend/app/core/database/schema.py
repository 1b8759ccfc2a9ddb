"""The tables, as the queries name them. How they come to be, triggers included, is in `migrations`."""

from __future__ import annotations

from pgvector.sqlalchemy import Vector
from sqlalchemy import BigInteger, Column, DateTime, Identity, Integer, LargeBinary, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()


def _timestamp(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _tenant() -> list[Column[str]]:
    return [Column("user_id", Text, nullable=False), Column("project_id", Text, nullable=False)]


# What was remembered. `revision` counts the versions of raw_data; `embedding` belongs to the present one or is null.
memory_logs = Table(
    "memory_logs",
    metadata,
    Column("id", BigInteger, Identity(always=False), primary_key=True),
    *_tenant(),
    Column("kind", Text, nullable=False),
    Column("document_id", Uuid),
    Column("raw_data", JSONB, nullable=False),
    Column("embedding", Vector()),
    Column("embedding_model", Text),
    Column("revision", BigInteger, nullable=False),
    _timestamp("created_at"),
    _timestamp("updated_at"),
)

# What the index does not know yet: an event for each change of memory_logs, written by a trigger of it.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("memory_id", BigInteger, nullable=False),
    *_tenant(),
    Column("kind", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    _timestamp("next_attempt_at"),
    Column("last_error", Text),
    _timestamp("created_at"),
)

# Events that were given up: the index does not hold what these records are now.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("memory_id", BigInteger, nullable=False),
    *_tenant(),
    Column("kind", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text, nullable=False),
    _timestamp("created_at"),
    _timestamp("failed_at"),
)

# What was deleted: an older index that comes back (a rollback) is told of it again.
tombstones = Table(
    "tombstones",
    metadata,
    Column("memory_id", BigInteger, primary_key=True),
    *_tenant(),
    Column("kind", Text, nullable=False),
    _timestamp("deleted_at"),
)

# Who may come in. Of the key only the SHA-256 of its secret part is kept.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("secret_hash", LargeBinary, nullable=False),
    *_tenant(),
    Column("label", Text, nullable=False),
    _timestamp("created_at"),
    _timestamp("expires_at", nullable=True),
    _timestamp("revoked_at", nullable=True),
)
