"""From PostgreSQL into Chroma: the outbox, the worker that empties it, dead letters, replay, rebuild."""
