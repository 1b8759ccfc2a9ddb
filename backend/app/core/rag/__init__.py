"""Retrieval for generation."""
