"""What a Chroma's refusals teach about its limits: how many records a request may have, how large a document may be.

Chroma Cloud says 422 "Quota exceeded: 'Number of records' exceeded quota limit for action 'Add': current usage of 787
exceeds limit of 300", and its pre-flight names another limit, which is wrong. A `get` that names no limit gives the
first 300 without a word, so it has to name one. chromactl learns alike (scripts/chromactl/stores/quota.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import httpx
from chromadb.errors import ChromaError, QuotaError

from app.core.errors import RecordsRefused

T = TypeVar("T")

_NAME = re.compile(r"'([^']+)' exceeded")
_USAGE = re.compile(r"usage of (\d+)")
_LIMIT = re.compile(r"limit of (\d+)")
# Of these no record is at fault, and fewer records a request would not help.
_OF_THE_WHOLE = ("collection size", "number of collections", "number of databases")
_OF_A_DOCUMENT = "document size"
_OF_THE_KEYS = "number of metadata dictionary keys"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's answer that something is too much: its words, and the quota's name and numbers if it says them."""

    words: str
    name: str = ""
    usage: int | None = None
    limit: int | None = None

    @property
    def of_the_whole(self) -> bool:
        """Whether it is about the collection or the database, and no record is to blame."""
        return self.name.startswith(_OF_THE_WHOLE)

    @property
    def of_the_keys(self) -> bool:
        """Whether it is about how many keys a record's metadata has."""
        return self.name.startswith(_OF_THE_KEYS)

    def allows(self, records: int) -> int | None:
        """How many records the server takes at once, where it says that these were too many."""
        counted = "number of records" in self.name or "limit value" in self.name
        return self.limit if counted and self.limit is not None and 0 < self.limit < records else None


def refusal(error: BaseException) -> Refusal | None:
    """What the error says of a quota; None where it is about something else."""
    cause = error.__context__
    status = cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None
    if type(error) not in (ChromaError, QuotaError) and status not in (400, 413, 422):
        return None
    words = " ".join(str(error).split())
    if "quota" not in words.lower() or "disk quota" in words.lower():
        return None
    name = _NAME.search(words)
    return Refusal(words, name[1].lower() if name else "", _number(_USAGE, words), _number(_LIMIT, words))


def _number(pattern: re.Pattern[str], words: str) -> int | None:
    found = pattern.search(words)
    return int(found[1]) if found else None


class Most:
    """How many records one request may have; any number while nothing is known. Threads share it."""

    def __init__(self) -> None:
        self.records: int | None = None

    def of(self, records: int) -> int:
        """How many of so many."""
        return min(records, self.records or records)

    def learn(self, records: int) -> None:
        """One request may have no more than so many."""
        self.records = self.of(records)  # two at once: whoever forgets the smaller number is told again

    def pages(self, ids: Sequence[str], do: Callable[[list[str]], T]) -> Iterator[T]:
        """What it gives to do this with all ids, in as few requests as the server takes."""
        start, most = 0, len(ids)
        while start < len(ids):
            page = list(ids[start : start + self.of(most)])
            try:
                done = do(page)
            except Exception as error:
                refused = refusal(error)
                if refused is None or len(page) == 1:
                    raise
                fewer = refused.allows(len(page)) or (0 if refused.name else len(page) // 2)
                if not fewer:
                    raise
                most = fewer
            else:
                if most < len(ids):
                    self.learn(most)
                yield done
                start += len(page)


class Quota:
    """The limits of one Chroma as far as they are known, for as long as the process runs. Threads share it."""

    def __init__(self) -> None:
        self.writing = Most()
        self.reading = Most()
        self._document: Refusal | None = None

    def write(self, documents: Sequence[str], send: Callable[[slice], None]) -> None:
        """Send records, in as few requests as the server takes.

        Raises RecordsRefused when one is known to be too large. What else the server refuses is raised as it came,
        and then some of the records may have been written.
        """
        self._check(documents)
        start = 0
        while start < len(documents):
            part = slice(start, start + self.writing.of(len(documents) - start))
            if self._written(part, documents, send):
                start = part.stop

    def remove(self, ids: Sequence[str], send: Callable[[list[str]], object]) -> None:
        """The same with ids that are to be removed, of which none can be at fault."""
        for _ in self.writing.pages(ids, send):
            pass

    def read(self, ids: Sequence[str], get: Callable[[list[str]], T]) -> list[T]:
        """What `get` gives of these, in as few requests as the server answers; nothing of no ids."""
        return list(self.reading.pages(ids, get))

    def _written(self, part: slice, documents: Sequence[str], send: Callable[[slice], None]) -> bool:
        """Send these; False where they turned out to be too many for one request."""
        try:
            send(part)
        except Exception as error:
            records = part.stop - part.start
            refused = refusal(error)
            if refused is None or records == 1:
                raise
            if (number := refused.allows(records)) is not None:
                self.writing.learn(number)
                return False
            if refused.name:
                self._learn(refused, documents[part])
                raise
            # It may be their number, or one of them. If each half is taken, it was their number.
            half = part.start + (records + 1) // 2
            send(slice(part.start, half))
            send(slice(half, part.stop))
            self.writing.learn(half - part.start)
        return True

    def _learn(self, refused: Refusal, documents: Sequence[str]) -> None:
        # believed only where our way to measure finds the very number that the server did
        if refused.name.startswith(_OF_A_DOCUMENT) and refused.limit is not None and refused.usage is not None:
            if refused.usage > refused.limit and refused.usage in map(_bytes, documents):
                self._document = refused

    def _check(self, documents: Sequence[str]) -> None:
        known = self._document
        if known is None or known.limit is None:
            return
        if (size := max(map(_bytes, documents), default=0)) > known.limit:
            raise RecordsRefused(f"Chroma refuses such records: {_USAGE.sub(f'usage of {size}', known.words)}.")


def _bytes(text: str) -> int:
    return len(text.encode(errors="replace"))
