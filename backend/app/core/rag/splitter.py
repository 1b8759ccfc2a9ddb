"""A document cut into passages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol
from uuid import UUID

from semantic_text_splitter import TextSplitter

from app.core.memory.record import DOCUMENT_ID, PASSAGE, SOURCE

# The time to find sentences and words grows faster than the text: 262,144 Chinese characters without a full stop take
# 38 s at once, and 1.3 s in blocks of this many.
BLOCK_CHARACTERS = 8192
_BREAKS = ("\n\n", "\n", ". ", " ")


class _Document(Protocol):
    content: str
    source: str
    metadata: dict[str, Any]


class Splitter:
    """Cuts at paragraphs where possible, then at sentences, then at words. Sizes are in characters.

    It works without Python's global lock, so a thread of its own keeps it out of everybody's way.
    """

    def __init__(self, size: int, overlap: int) -> None:
        self._splitter = TextSplitter((size // 2, size), overlap)
        self._block = max(BLOCK_CHARACTERS, 4 * size)

    def passages(self, document: _Document, document_id: UUID) -> list[dict[str, Any]]:
        """The raw data of each passage: its text, and the document's metadata with what tells passages apart.

        That is `document_id`, `source` and `passage` (its position, from 0).
        """
        told = {**document.metadata, DOCUMENT_ID: str(document_id), SOURCE: document.source}
        return [
            {"content": text, "metadata": {**told, PASSAGE: position}}
            for position, text in enumerate(self._texts(document.content))
        ]

    def _texts(self, content: str) -> Iterator[str]:
        for block in blocks(content, self._block):
            yield from self._splitter.chunks(block)


def blocks(text: str, size: int) -> Iterator[str]:
    """The text in parts of at most `size` characters, cut where it breaks best in the second half of each."""
    start = 0
    while len(text) - start > size:
        middle, end = start + size // 2, start + size
        found = (text.rfind(mark, middle, end) + len(mark) for mark in _BREAKS if text.rfind(mark, middle, end) >= 0)
        cut = next(found, end)
        yield text[start:cut]
        start = cut
    yield text[start:]
