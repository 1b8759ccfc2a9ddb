"""Vectors for the texts of test queries: by the hashing embedder, or by a model behind an OpenAI-compatible API."""

from chromactl.embedding.hashing import hashing_embeddings

__all__ = ["hashing_embeddings"]
