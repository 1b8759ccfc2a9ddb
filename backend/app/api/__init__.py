"""Routes: HTTP in, calls to app.core, HTTP out."""
