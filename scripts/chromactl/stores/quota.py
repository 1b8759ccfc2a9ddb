"""What a server's refusals teach about its limits: how many records a request, how large a record.

Chroma Cloud says 422 "Quota exceeded: 'Number of records' exceeded quota limit for action 'Add': current usage of 787
exceeds limit of 300"; its pre-flight names another limit, which is wrong. Where a get names no limit, it gives
back the first 300 without a word, so every get here names one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from chromactl.errors import RequestError
from chromactl.reject import Reject
from chromactl.stores.base import Batch

T = TypeVar("T")

WRITE_BYTES = 24 * 2**20
OVER_QUOTA = "over_quota"
LONGEST_VALUE = 200
LONGEST_PAGE = 10_000
TOO_LARGE = 413

_REFUSING = frozenset({400, TOO_LARGE, 422})
_NAME = re.compile(r"'([^']+)' exceeded")
_USAGE = re.compile(r"usage of (\d+)")
_LIMIT = re.compile(r"limit of (\d+)")
# Of these no record is at fault, and fewer records a request would not help.
_OF_THE_WHOLE = ("collection size", "number of collections", "number of databases")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A server's answer that something is too much: its words, and the quota's name, usage and limit if it says."""

    words: str
    name: str = ""
    usage: int | None = None
    limit: int | None = None

    @property
    def value(self) -> str:
        """The server's words as a reject has them."""
        return self.words[:LONGEST_VALUE]


def refusal(error: RequestError) -> Refusal | None:
    """What the answer says of a quota; None where it is about something else, or about the collection as a whole."""
    words = " ".join(error.words.split())
    about_quota = error.status in _REFUSING and "quota" in words.lower()
    if not about_quota and error.status != TOO_LARGE:
        return None
    name = _NAME.search(words)
    found = Refusal(words, name[1].lower() if name else "", _number(_USAGE, words), _number(_LIMIT, words))
    return None if found.name.startswith(_OF_THE_WHOLE) else found


def _number(pattern: re.Pattern[str], words: str) -> int | None:
    found = pattern.search(words)
    return int(found[1]) if found else None


Measure = Callable[[Batch, int], tuple[str, int]]
"""Of one row of a batch: the field that a quota may be about, and its size."""


def _text(text: str | None) -> int:
    return len((text or "").encode(errors="replace"))


def _largest_key(batch: Batch, row: int) -> tuple[str, int]:
    return max(((key, _text(key)) for key in batch.metadatas[row] or {}), key=lambda found: found[1], default=("", 0))


def _largest_value(batch: Batch, row: int) -> tuple[str, int]:
    texts = ((key, value) for key, value in (batch.metadatas[row] or {}).items() if isinstance(value, str))
    return max(((key, _text(value)) for key, value in texts), key=lambda found: found[1], default=("", 0))


# By what a quota's name has in it. Only these are told from the record itself; others are found by halving.
_MEASURES: dict[str, Measure] = {
    "dictionary keys": lambda batch, row: ("metadata", len(batch.metadatas[row] or {})),
    "dictionary key": _largest_key,
    "dictionary value": _largest_value,
    "document size": lambda batch, row: ("document", _text(batch.documents[row])),
    "uri size": lambda batch, row: ("uri", _text(batch.uris[row])),
    "id size": lambda batch, row: ("id", _text(batch.ids[row])),
    "embedding dimension": lambda batch, row: ("embedding", batch.dimension),
}


def _measured(name: str) -> str | None:
    return next((words for words in _MEASURES if words in name), None)


class Quota:
    """The limits of one server as far as they are known. Threads share it.

    `written` and `read` are how many records a request may have, None while nothing is known against any number;
    `body_bytes` how large about the body of a write may be.
    """

    def __init__(self, body_bytes: int = WRITE_BYTES) -> None:
        self.written: int | None = None
        self.read: int | None = None
        self.body_bytes = body_bytes
        self._rules: dict[str, Refusal] = {}
        self._lock = threading.Lock()

    # Writing

    def part_off(self, batch: Batch) -> tuple[Batch, list[Reject]]:
        """The records that no known limit speaks against, and the others."""
        rules = self._rules
        if not rules:
            return batch, []
        rejects = [_broken(rules, batch, row) for row in range(len(batch))]
        rows = [row for row, reject in enumerate(rejects) if reject is None]
        found = [reject for reject in rejects if reject is not None]
        return (batch.take(rows), found) if found else (batch, [])

    def learn_from_write(self, refused: Refusal, batch: Batch) -> bool:
        """Take note of why the batch was refused; whether what is known now cuts it another way than before."""
        if refused.limit is None or refused.limit < 1:
            return False
        if "number of records" in refused.name and refused.limit < len(batch):
            self.fewer_written(refused, len(batch))
            return True
        measure = _measured(refused.name)
        if measure is None:
            return False
        # Believed only where our way to measure found the very number that the server did.
        sizes = {_MEASURES[measure](batch, row)[1] for row in range(len(batch))}
        if refused.usage not in sizes or refused.usage <= refused.limit:
            return False
        with self._lock:
            self._rules = {**self._rules, measure: refused}
        return True

    def fewer_written(self, refused: Refusal, records: int) -> int:
        """Take note that so many records are too many for one request that writes; how many to try instead."""
        with self._lock:
            self.written = min(self.written or records, _fewer(refused, records))
            return self.written

    def too_large(self, size: int) -> None:
        """Take note that a body of so many bytes is too large."""
        with self._lock:
            self.body_bytes = min(self.body_bytes, max(1, size // 2))

    def reject(self, refused: Refusal, batch: Batch) -> Reject:
        """What a refused batch of one record comes to."""
        measure = _measured(refused.name)
        field, size = _MEASURES[measure](batch, 0) if measure else ("record", 0)
        if refused.limit is None or size <= refused.limit:
            field = "record"
        return Reject(batch.ids[0], field, OVER_QUOTA, refused.value)

    # Reading

    def pages(self, ids: Sequence[str], most: int) -> Iterator[list[str]]:
        """The ids in pages of at most `most`, or of what the server allows by then."""
        start = 0
        while start < len(ids):
            end = start + min(most, self.read or most)
            yield list(ids[start:end])
            start = end

    def fewer_read(self, refused: Refusal, records: int) -> int:
        """Take note that so many records are too many for one request that reads; how many to ask for instead."""
        with self._lock:
            self.read = min(self.read or records, _fewer(refused, records))
            return self.read


def _fewer(refused: Refusal, records: int) -> int:
    return refused.limit if refused.limit and refused.limit < records else max(1, records // 2)


def _broken(rules: dict[str, Refusal], batch: Batch, row: int) -> Reject | None:
    for measure, rule in rules.items():
        field, size = _MEASURES[measure](batch, row)
        if rule.limit is not None and size > rule.limit:
            words = _USAGE.sub(f"usage of {size}", rule.words)
            return Reject(batch.ids[row], field, OVER_QUOTA, words[:LONGEST_VALUE])
    return None


def pages_of(quota: Quota, most: int, get: Callable[[int, int], list[T]]) -> Iterator[list[T]]:
    """All that `get(limit, offset)` gives, in pages of at most `most`, until a page is empty.

    A short page is not the end: a server may give fewer than it was asked for.
    """
    offset = 0
    while True:
        size = min(most, quota.read or most)
        try:
            page = get(size, offset)
        except RequestError as error:
            if (refused := refusal(error)) is None or size == 1:
                raise
            quota.fewer_read(refused, size)
            continue
        if not page:
            return
        yield page
        offset += len(page)


def all_ids(quota: Quota, count: Callable[[], int], get: Callable[[int | None, int], list[str]]) -> list[str]:
    """Every id of a collection. `get(limit, offset)` asks the server for some; without a limit, for all.

    In one answer where the server gives it, so that writes in the meantime cannot shift a page. Where it does not, in
    pages; what was shifted to a page that had been read is found by a second pass, when the numbers differ.

    Raises:
        RequestError: the server refuses for another reason than a quota.
    """
    if quota.read is None:
        try:
            found = get(None, 0)
        except RequestError as error:
            if (refused := refusal(error)) is None:
                raise
            quota.fewer_read(refused, max(2, count()))
        else:
            there = count()
            # Short without a word is a limit that nobody named, unless records were just written.
            if len(found) >= there or not get(max(1, len(found)), len(found)):
                return found
            quota.fewer_read(Refusal("", limit=len(found)), there)
    ids: dict[str, None] = {}
    for _ in range(2):
        for page in pages_of(quota, LONGEST_PAGE, get):
            ids.update(dict.fromkeys(page))
        if len(ids) >= count():
            break
    return list(ids)
