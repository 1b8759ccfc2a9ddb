"""Semantic memory."""
