"""The eight tests, a module each."""
