"""Alembic's entry: runs the versions on the connection that app.core.database.upgrade hands over."""

from __future__ import annotations

from alembic import context

from app.core.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
