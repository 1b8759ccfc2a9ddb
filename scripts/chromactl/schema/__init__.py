"""Profiles: what a migrated record has to look like, as data."""
