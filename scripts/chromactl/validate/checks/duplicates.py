"""Test 6, duplicate detection: no id twice, in a collection or by a copy in another; the same document is told."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from chromactl.stores.base import Batch
from chromactl.validate.checks.base import Check, plural
from chromactl.validate.findings import CheckResult, Offender, Status, Write
from chromactl.validate.part import Extra, Part, Whole


class DuplicateCheck(Check):
    """Ids and documents that are there more than once.

    Of each document only 8 bytes of its digest are kept; two different ones among a million meet with a chance of
    one in ten million.
    """

    number: ClassVar[int] = 6
    name: ClassVar[str] = "duplicate_detection"
    title: ClassVar[str] = "Duplicate Detection"

    def __init__(self, write: Write) -> None:
        super().__init__(write)
        self._documents: dict[str, dict[int, str]] = {}
        self._before: dict[str, set[int]] = {}
        self._twice_before: dict[str, set[int]] = {}
        self._twice: list[tuple[str, int, str, str]] = []

    def observe(self, part: Part) -> None:
        """Look for documents that were seen before, on both sides."""
        seen = self._before.setdefault(part.target.name, set())
        twice = self._twice_before.setdefault(part.target.name, set())
        for document in part.wanted.documents:
            if document:
                key = _key(document)
                (twice if key in seen else seen).add(key)
        self._look(part.collection, part.actual)

    def observe_extra(self, extra: Extra) -> None:
        """Look for documents that were seen before."""
        self._look(extra.target.name, extra.actual)

    def _look(self, collection: str, batch: Batch) -> None:
        seen = self._documents.setdefault(collection, {})
        for record, document in zip(batch.ids, batch.documents, strict=True):
            if document:
                key = _key(document)
                first = seen.setdefault(key, record)
                if first != record:
                    self._twice.append((collection, key, record, first))

    def finish(self, whole: Whole) -> None:
        """Name ids that are there twice; tell documents that came twice from the old side from those that did not."""
        self._ids = 0
        for name, state in whole.targets.items():
            self._ids += len(state.doubled)
            self.findings.add(Offender(name, record, "the id is there twice", "id") for record in state.doubled)
        self._ids += len(whole.copies)
        self.findings.add(
            Offender(one.found, one.id, "the id is there twice", "id", f"only in {one.should}", f"also in {one.found}")
            for one in whole.copies
        )
        self._contested = sum(len(ids) for ids in whole.plan.contested.values())
        new = [entry for entry in self._twice if entry[1] not in self._twice_before.get(entry[0], ())]
        self._old = len(self._twice) - len(new)
        self._new = len(new)
        self.findings.add(
            Offender(collection, record, "same content under two ids", "document", "", f"that of {first}")
            for collection, _, record, first in new
        )

    def result(self) -> CheckResult:
        """Failed for ids; a warning for content that became the same; a note for what the old side had twice too."""
        numbers = {
            "duplicate_ids": self._ids,
            "contested_ids": self._contested,
            "duplicate_content": self._new,
            "duplicate_content_in_old_too": self._old,
        }
        notes = []
        if self._old:
            notes.append(f"{plural(self._old, 'document')} more than once on both sides, under different ids")
        if self._contested:
            notes.append(
                f"{plural(self._contested, 'id')} of merged collections came from more than one of them; the first "
                "one's record is there, the others were left out"
            )
        if self._ids:
            hint = "Remove the copies, or roll back; ids of merged collections are told apart by `ids:` in the profile."
            return self._result(
                Status.FAILED, f"{plural(self._ids, 'id')} there twice", numbers, hint=hint, notes=notes
            )
        if self._new:
            hint = "Look at these pairs: the old side does not have the same content twice."
            summary = f"no id twice; {plural(self._new, 'record')} with the content of another"
            return self._result(Status.WARNING, summary, numbers, hint=hint, notes=notes)
        return self._result(Status.PASSED, "no id twice, no content that became the same", numbers, notes=notes)


def _key(document: str) -> int:
    return int.from_bytes(hashlib.blake2b(document.encode(errors="surrogatepass"), digest_size=8).digest(), "big")
