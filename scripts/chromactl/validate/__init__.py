"""Validation: does the new database hold what the old one held, as the profile meant it? Eight tests, one verdict."""
