"""Stores: everything that can yield and take batches of records."""
