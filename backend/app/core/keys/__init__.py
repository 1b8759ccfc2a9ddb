"""API keys: who may come in, and as which tenant."""
