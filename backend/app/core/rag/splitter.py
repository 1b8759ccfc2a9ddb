"""A document cut into passages."""

from __future__ import annotations

from typing import Any, Protocol

from semantic_text_splitter import TextSplitter


class _Document(Protocol):
    content: str
    source: str
    metadata: dict[str, Any]


class Splitter:
    """Cuts at paragraphs where possible, then at sentences, then at words. Sizes are in characters."""

    def __init__(self, size: int, overlap: int) -> None:
        self._splitter = TextSplitter((size // 2, size), overlap)

    def passages(self, document: _Document) -> list[dict[str, Any]]:
        """The raw data of each passage: its text, and the document's metadata with `source` and `passage` (from 0)."""
        return [
            {"content": text, "metadata": {**document.metadata, "source": document.source, "passage": position}}
            for position, text in enumerate(self._splitter.chunks(document.content))
        ]
