"""Test 2, embedding integrity: every vector present, finite, of the right dimension, and equal to the old side's.

What a `get` with embeddings answers comes out of the index itself (HNSW), while counts come from SQLite: an index
that lost vectors is found by it. The metric is proven with a query; index settings, the embedding function's name and
configuration, and which keys have an index, are compared as they are stated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from chromactl.compare import COSINE_TOLERANCE, shown
from chromactl.stores.base import CollectionSpec, Unreadable
from chromactl.stores.index_switches import differing
from chromactl.validate.checks.base import Check, plural
from chromactl.validate.findings import CheckResult, Offender, Status, Write
from chromactl.validate.part import Extra, Part, TargetState, Whole

HELD = 1000
"""Differing vectors that are kept to see whether they were exchanged."""

_CLOSE = 1e-4
_WORDS = {
    "index": "an index does not answer",
    "metric": "another metric",
    "dimension": "of another dimension",
    "lost": "not given back by the index",
    "not finite": "not finite",
    "zero": "zero",
    "different": "different",
}


@dataclass(frozen=True, slots=True)
class _Differing:
    collection: str
    id: str
    expected: NDArray[np.float32]
    actual: NDArray[np.float32]


class EmbeddingCheck(Check):
    """All vectors, metrics and index settings."""

    number: ClassVar[int] = 2
    name: ClassVar[str] = "embedding_integrity"
    title: ClassVar[str] = "Embedding Integrity"

    def __init__(self, write: Write) -> None:
        super().__init__(write)
        self._compared = self._rounded = self._unread = self._extra = 0
        self._kinds: Counter[str] = Counter()
        self._differing: list[_Differing] = []
        self._settings: list[str] = []
        self._metrics: dict[str, str | None] = {}
        self._norms: dict[str, dict[str, list[NDArray[np.float32]]]] = {}

    @property
    def norms(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """The lengths of all vectors by collection, old and new."""
        return {
            name: {side: np.concatenate(parts) for side, parts in sides.items()} for name, sides in self._norms.items()
        }

    def observe(self, part: Part) -> None:
        """Compare the vectors of these records."""
        found = self._lost(part.collection, part.unreadable)
        if not part.whole:
            self._unread += len(part.expected)
        elif len(part.expected):
            self._compared += len(part.expected)
            self._note_norms(part)
            found += self._differences(part)
        self.findings.add(found)

    def observe_extra(self, extra: Extra) -> None:
        """Look at the vectors of records that should not be there: there is nothing else to compare them with."""
        found = self._lost(extra.target.name, extra.unreadable)
        if not extra.whole:
            self._unread += len(extra.actual)
        else:
            self._extra += len(extra.actual)
            found += self._broken(extra)
        self.findings.add(found)

    def _lost(self, collection: str, unreadable: list[Unreadable]) -> list[Offender]:
        words = ("the index does not give it back", "embedding", "a vector")
        found = [
            Offender(collection, record, *words, entry.reason[-60:]) for entry in unreadable for record in entry.ids
        ]
        self._kinds["lost"] += len(found)
        return found

    def _broken(self, extra: Extra) -> Iterator[Offender]:
        name, wanted = extra.target.name, extra.target.spec.dimension
        for record, vector in zip(extra.actual.ids, extra.actual.embeddings, strict=True):
            if wanted is not None and len(vector) != wanted:
                yield self._another_dimension(name, record, wanted, len(vector))
            elif not np.isfinite(vector).all():
                yield self._not_finite(name, record, vector)
            elif not vector.any():
                yield self._zero(name, record, "a length")

    def _another_dimension(self, collection: str, record: str, wanted: int, got: int) -> Offender:
        self._kinds["dimension"] += 1
        return Offender(collection, record, "another dimension", "embedding", f"dimension {wanted}", f"dimension {got}")

    def _not_finite(self, collection: str, record: str, vector: NDArray[np.float32]) -> Offender:
        self._kinds["not finite"] += 1
        bad = int((~np.isfinite(vector)).sum())
        return Offender(collection, record, "not finite", "embedding", "numbers", f"{bad} of {len(vector)} are not")

    def _zero(self, collection: str, record: str, wanted: str) -> Offender:
        self._kinds["zero"] += 1
        return Offender(collection, record, "a zero vector", "embedding", wanted, "length 0")

    def _note_norms(self, part: Part) -> None:
        sides = self._norms.setdefault(part.target.name, {"old": [], "new": []})
        with np.errstate(over="ignore", invalid="ignore"):
            sides["old"].append(np.linalg.norm(part.expected.embeddings, axis=1))
            sides["new"].append(np.linalg.norm(part.actual.embeddings, axis=1))

    def _differences(self, part: Part) -> Iterator[Offender]:
        wanted, got = part.expected.embeddings, part.actual.embeddings
        name, ids = part.collection, part.expected.ids
        if wanted.shape != got.shape:
            yield from (self._another_dimension(name, record, wanted.shape[1], got.shape[1]) for record in ids)
            return
        equal = (wanted == got).all(axis=1)
        close = equal
        if part.target.spec.space == "cosine" and not equal.all():
            close = np.isclose(got, wanted, rtol=COSINE_TOLERANCE, atol=0.0).all(axis=1)
        self._rounded += int((close & ~equal).sum())
        for row in np.flatnonzero(~close):
            expected, actual = wanted[row], got[row]
            if not np.isfinite(actual).all():
                yield self._not_finite(name, ids[row], actual)
            elif not actual.any():
                yield self._zero(name, ids[row], f"length {float(np.linalg.norm(expected)):.6g}")
            else:
                self._kinds["different"] += 1
                one = _Differing(name, ids[row], expected.copy(), actual.copy())
                if len(self._differing) < HELD:
                    self._differing.append(one)
                else:
                    yield _different(one)

    def finish(self, whole: Whole) -> None:
        """Say of the differing vectors which were exchanged; compare metrics and index settings."""
        self.findings.add(_explained(self._differing))
        for name, state in whole.targets.items():
            if state.collection is not None:
                self._metrics[name] = state.proven
                self.findings.add(self._index(name, state))

    def _index(self, name: str, state: TargetState) -> Iterator[Offender]:
        assert state.collection is not None  # noqa: S101 (the caller has just looked)
        wanted, stated = state.target.spec, state.collection.spec
        if state.index_error:
            self._kinds["index"] += 1
            yield Offender(name, "", "the index does not answer", "index", "an answer", state.index_error)
        actual = state.proven or stated.space
        if actual != wanted.space:
            self._kinds["metric"] += 1
            yield Offender(name, "", "another metric", "metric", wanted.space, actual)
        for key in sorted(wanted.hnsw.keys() & stated.hnsw.keys()):
            if wanted.hnsw[key] != stated.hnsw[key]:
                words = (f"{wanted.hnsw[key]:g}", f"{stated.hnsw[key]:g}")
                self._settings.append(f"{name}: {key} is {words[1]}, was {words[0]}")
                yield Offender(name, "", "another index setting", key, *words)
        yield from self._configuration(name, wanted, stated)

    def _configuration(self, name: str, wanted: CollectionSpec, stated: CollectionSpec) -> Iterator[Offender]:
        before, now = _function(wanted), _function(stated)
        if before != now:
            self._settings.append(f"{name}: the embedding function is {shown(now)}, was {shown(before)}")
            yield Offender(name, "", "another embedding function", "embedding_function", shown(before), shown(now))
        for index, was, is_now in differing(wanted.schema, stated.schema):
            self._settings.append(f"{name}: {index} is {is_now}, was {was}")
            yield Offender(name, "", f"another switch of {index}", "schema", was, is_now)

    def result(self) -> CheckResult:
        """Failed for any vector or metric that is not right; a warning for other settings of a collection."""
        unread = self._unread - self._kinds["lost"]  # the texts of lost ones were read too
        numbers = {
            "compared": self._compared,
            "extra": self._extra,
            "rounded": self._rounded,
            "not_read": unread,
            "by_kind": {kind: count for kind, count in self._kinds.items() if count},
            "metric_proven": self._metrics,
            "index_settings_differ": self._settings,
        }
        notes = []
        if self._rounded:
            notes.append(
                f"{plural(self._rounded, 'vector')} of cosine collections equal within a relative "
                f"{COSINE_TOLERANCE:g}: the server's own rounding"
            )
        if unread:
            notes.append(f"the vectors of {plural(unread, 'more record')} were not asked for: their index is broken")
        wrong = [f"{words} ({self._kinds[kind]:,})" for kind, words in _WORDS.items() if self._kinds[kind]]
        if wrong:
            hint = (
                "Vectors that differ cannot be mended in place: roll back and migrate again. If the index does not "
                "give them back, it has lost them though the counts are right: rebuild it from a snapshot."
            )
            return self._result(Status.FAILED, f"vectors: {', '.join(wrong)}", numbers, hint=hint, notes=notes)
        summary = f"all {plural(self._compared, 'vector')} equal"
        if self._settings:
            hint = "Settings change recall, speed and who embeds, not data; set them in the profile or accept them."
            return self._result(
                Status.WARNING, f"{summary}; {'; '.join(self._settings[:5])}", numbers, hint=hint, notes=notes
            )
        return self._result(Status.PASSED, summary, numbers, notes=notes)


def _function(spec: CollectionSpec) -> dict[str, Any] | None:
    """Which embedding function a collection names; 1.x says of those made by older versions that it knows none."""
    function = spec.embedding_function
    return None if function is None or function.get("type") in ("legacy", "unknown") else function


def _explained(differing: list[_Differing]) -> Iterator[Offender]:
    for one in differing:
        partner = next(
            (other for other in differing if other is not one and _near(one.actual, other.expected)),
            None,
        )
        if partner is None:
            yield _different(one)
        else:
            words = ("its own vector", f"the vector of {partner.id}")
            yield Offender(one.collection, one.id, "exchanged with another record's", "embedding", *words)


def _near(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE * np.abs(other).max()))


def _different(one: _Differing) -> Offender:
    gap = np.abs(one.expected - one.actual)
    worst = int(np.argmax(gap))
    words = (f"[{worst}] = {one.expected[worst]}", f"[{worst}] = {one.actual[worst]}")
    what = f"differs in {int((gap > 0).sum())} of {len(gap)} numbers, at most by {gap[worst]:.3g}"
    return Offender(one.collection, one.id, what, "embedding", *words)
