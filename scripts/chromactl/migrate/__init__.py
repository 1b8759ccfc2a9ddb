"""Moving a database: preflight, export, transform, validate, import, verify, complete."""
