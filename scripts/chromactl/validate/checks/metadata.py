"""Test 3, metadata completeness: documents, uris and every field are what the transform makes of the old record."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from chromactl.stores.base import Scalar
from chromactl.validate.checks.base import Check, offenders, plural
from chromactl.validate.fields import Matter
from chromactl.validate.findings import CheckResult, Offender, Status, Write
from chromactl.validate.part import Part, Whole


class MetadataCheck(Check):
    """Texts and metadata of all records, and of the collections themselves."""

    number: ClassVar[int] = 3
    name: ClassVar[str] = "metadata_completeness"
    title: ClassVar[str] = "Metadata Completeness"

    def __init__(self, write: Write) -> None:
        super().__init__(write)
        self._compared = self._values = self._rounded = 0
        self._kinds: Counter[str] = Counter()
        self._fields: Counter[str] = Counter()
        self._collections: list[str] = []

    def observe(self, part: Part) -> None:
        """Take the differences that are neither of types nor of citations."""
        self._compared += len(part.expected)
        self._values += sum(len(metadata or ()) for metadata in part.expected.metadatas)
        self._rounded += part.rounded
        found = offenders(part.collection, part.fields, Matter.METADATA)
        for one in found:
            self._kinds[one.what] += 1
            self._fields[one.field] += 1
        self.findings.add(found)

    def finish(self, whole: Whole) -> None:
        """Compare the metadata of the collections; index settings in it are a matter of test 2."""
        for name, state in whole.targets.items():
            if state.collection is not None:
                wanted, got = _own(state.target.spec.metadata), _own(state.collection.spec.metadata)
                if wanted != got:
                    self._collections.append(name)
                    words = ("metadata", str(wanted), str(got))
                    self.findings.add([Offender(name, "", "the collection's own metadata differs", *words)])

    def result(self) -> CheckResult:
        """Failed for any field of any record; a warning for the metadata of a collection."""
        numbers = {
            "compared": self._compared,
            "values": self._values,
            "rounded_floats": self._rounded,
            "by_kind": dict(self._kinds),
            "by_field": dict(self._fields),
            "collections_differ": self._collections,
        }
        notes = []
        if self._rounded:
            notes.append(f"{plural(self._rounded, 'record')} with floats off by up to 2 ULP: the server's own rounding")
        if self._kinds:
            wrong = ", ".join(f"{what} ({count:,})" for what, count in self._kinds.most_common())
            hint = (
                "Is --profile the one of the migration? Then these records were changed since, or were written by "
                "something else: migrate again, or roll back."
            )
            return self._result(Status.FAILED, wrong, numbers, hint=hint, notes=notes)
        summary = f"all {plural(self._values, 'value')} of {plural(self._compared, 'record')} as they should be"
        if self._collections:
            return self._result(
                Status.WARNING,
                f"{summary}; the collections' own metadata differs: {', '.join(self._collections)}",
                numbers,
                hint="Look whether anything reads the collection's metadata; the records are right.",
                notes=notes,
            )
        return self._result(Status.PASSED, summary, numbers, notes=notes)


def _own(metadata: dict[str, Scalar] | None) -> dict[str, Scalar]:
    return {key: value for key, value in (metadata or {}).items() if not key.startswith("hnsw:")}
