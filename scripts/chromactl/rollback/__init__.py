"""Putting a database back as it was: see chromactl.rollback.engine."""
