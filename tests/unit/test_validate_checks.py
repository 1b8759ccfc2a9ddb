"""Every check on batches in memory: what it counts, what it names, what it leaves to others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from chromactl.migrate.plan import Plan, PlannedCollection, PlannedTarget
from chromactl.reject import Reject
from chromactl.schema import profile as profiles
from chromactl.stores.base import Collection, CollectionSpec, Unreadable
from chromactl.validate.checks.base import Check
from chromactl.validate.checks.citations import CitationCheck
from chromactl.validate.checks.counts import CountCheck
from chromactl.validate.checks.distribution import DistributionCheck
from chromactl.validate.checks.duplicates import DuplicateCheck
from chromactl.validate.checks.embeddings import EmbeddingCheck
from chromactl.validate.checks.field_types import FieldTypeCheck
from chromactl.validate.checks.metadata import MetadataCheck
from chromactl.validate.findings import SHOWN, CheckResult, Offender, Status
from chromactl.validate.part import Extra, Misplaced, Part, Refusals, TargetState, Whole, compare
from support.records import Record, batch_of, plain

SERGIO = profiles.load("sergio")
IDENTITY = profiles.load("identity")
SPEC = CollectionSpec("sergio_corpus", "l2", {"owner": "ü", "hnsw:space": "l2"}, {"ef_search": 100}, dimension=8)
TARGET = PlannedTarget("sergio_corpus", SPEC, ["sergio_corpus"])
RECORDS = plain(30)


class Seen(list[tuple[int, Offender]]):
    """What a check has written down."""

    def __call__(self, test: int, offender: Offender) -> None:
        self.append((test, offender))

    @property
    def ids(self) -> list[str]:
        return [offender.id for _, offender in self]


@pytest.fixture
def seen() -> Seen:
    return Seen()


def part(actual: list[Record], wanted: list[Record] | None = None, **more: Any) -> Part:
    target = more.pop("target", TARGET)
    rules = more.pop("rules", {})
    lost = [Unreadable([record], "HTTP 500: gone") for record in more.pop("lost", [])]
    return compare(target, batch_of(wanted or RECORDS), batch_of(actual), lost, rules, **more)


def but(number: int, **changes: Any) -> list[Record]:
    """The records, one of them with these changes."""
    return [replace(record, **changes) if n == number else record for n, record in enumerate(RECORDS)]


def whole(**state: Any) -> Whole:
    plan = Plan([PlannedCollection("k", SPEC, [[record.id for record in RECORDS]])], [TARGET], ["other"])
    usual: dict[str, Any] = {"collection": Collection(SPEC, "k"), "count": 30, "ids": 30, "expected": 30}
    return Whole(plan, {"sergio_corpus": TargetState(**{"target": TARGET, **usual, **state})})


def finished(check: Check, end: Whole | None = None) -> CheckResult:
    check.finish(end or whole())
    return check.result()


# Pairing


def test_records_are_paired_whatever_their_order() -> None:
    found = part(list(reversed(RECORDS)))
    assert found.actual.ids == found.expected.ids == [record.id for record in RECORDS]
    assert (found.missing, found.fields) == ([], [])


def test_what_is_not_given_is_missing_and_what_cannot_be_given_is_not() -> None:
    found = part(RECORDS[2:], lost=[RECORDS[0].id])
    assert found.missing == [RECORDS[1].id]
    assert len(found.expected) == 28


# 1


def test_counts(seen: Seen) -> None:
    result = finished(CountCheck(seen))
    assert (result.status, seen) == (Status.PASSED, [])
    assert (result.numbers["old"], result.numbers["new"]) == (30, 30)


@pytest.mark.parametrize(
    ("state", "named"),
    [
        ({"missing": ["a"], "ids": 29, "count": 29}, ["a"]),
        ({"extra": ["b"], "ids": 31, "count": 31}, ["b"]),
        ({"count": 29}, [""]),
    ],
)
def test_counts_that_do_not_agree(seen: Seen, state: dict[str, Any], named: list[str]) -> None:
    result = finished(CountCheck(seen), whole(**state))
    assert (result.status, seen.ids) == (Status.FAILED, named)
    assert result.hint


def test_what_was_left_out_is_a_warning(seen: Seen) -> None:
    check = CountCheck(seen)
    check.observe_refusals(Refusals("sergio_corpus", [Reject("x", "language", "invalid_language", "'fr'")]))
    end = whole(expected=30)
    end.rejected, end.reasons = 1, Counter({"invalid_language": 1})
    result = finished(check, end)
    assert (result.status, seen.ids) == (Status.WARNING, ["x"])
    assert result.numbers["left_out_by_reason"] == {"invalid_language": 1}


# 2


def test_equal_vectors(seen: Seen) -> None:
    check = EmbeddingCheck(seen)
    check.observe(part(RECORDS))
    result = finished(check, whole(proven="l2"))
    assert (result.status, result.numbers["compared"], result.numbers["rounded"]) == (Status.PASSED, 30, 0)
    assert check.norms["sergio_corpus"]["old"].shape == (30,)


def off(vector: Any, by: float) -> Any:
    changed = vector.copy()
    changed[3] += by
    return changed


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        (off(RECORDS[4].embedding, 1e-4), "differs in 1 of 8 numbers, at most by 0.0001"),
        (np.zeros(8, np.float32), "a zero vector"),
        (np.full(8, np.nan, np.float32), "not finite"),
        (np.full(8, np.inf, np.float32), "not finite"),
    ],
)
def test_a_vector_that_is_not_right(seen: Seen, vector: Any, what: str) -> None:
    check = EmbeddingCheck(seen)
    check.observe(part(but(4, embedding=vector.astype(np.float32))))
    assert finished(check).status is Status.FAILED
    assert [(one.id, one.what[:24]) for _, one in seen] == [(RECORDS[4].id, what[:24])]


def test_a_zero_vector_that_was_one_is_right(seen: Seen) -> None:
    zero = but(4, embedding=np.zeros(8, np.float32))
    check = EmbeddingCheck(seen)
    check.observe(part(zero, zero))
    assert finished(check).status is Status.PASSED


def test_the_rounding_of_cosine_is_allowed_there_only(seen: Seen) -> None:
    rounded = [replace(one, embedding=one.embedding * np.float32(1 + 2e-7)) for one in RECORDS]
    cosine = replace(TARGET, spec=replace(SPEC, space="cosine"))
    check = EmbeddingCheck(seen)
    check.observe(part(rounded, target=cosine))
    assert (check.findings.total, check.result().numbers["rounded"] > 0) == (0, True)
    check.observe(part(rounded))
    check.finish(whole())
    assert check.findings.total > 0


def test_exchanged_vectors(seen: Seen) -> None:
    swapped = but(4, embedding=RECORDS[5].embedding)
    swapped[5] = replace(RECORDS[5], embedding=RECORDS[4].embedding)
    check = EmbeddingCheck(seen)
    check.observe(part(swapped))
    finished(check)
    assert [(one.id, one.actual) for _, one in seen] == [
        (RECORDS[4].id, f"the vector of {RECORDS[5].id}"),
        (RECORDS[5].id, f"the vector of {RECORDS[4].id}"),
    ]


def test_another_dimension(seen: Seen) -> None:
    check = EmbeddingCheck(seen)
    check.observe(part([replace(one, embedding=one.embedding[:4]) for one in RECORDS]))
    assert finished(check).numbers["by_kind"] == {"dimension": 30}
    assert (len(seen), len(check.findings.first)) == (30, SHOWN)


@pytest.mark.parametrize(
    ("vector", "what"),
    [
        (np.zeros(8), "a zero vector"),
        (np.full(8, np.nan), "not finite"),
        (np.ones(4), "another dimension"),
        (np.ones(8), None),
    ],
)
def test_the_vector_of_an_extra_record(seen: Seen, vector: Any, what: str | None) -> None:
    check = EmbeddingCheck(seen)
    check.observe_extra(Extra(TARGET, batch_of([Record("new", vector.astype(np.float32))])))
    result = finished(check)
    assert result.status is (Status.PASSED if what is None else Status.FAILED)
    assert [(one.id, one.what) for _, one in seen] == ([] if what is None else [("new", what)])
    assert result.numbers["extra"] == 1


def test_the_lost_vector_of_an_extra_record(seen: Seen) -> None:
    check = EmbeddingCheck(seen)
    check.observe_extra(Extra(TARGET, batch_of(RECORDS[:2]), [Unreadable(["new"], "HTTP 500: gone")]))
    check.observe_extra(Extra(TARGET, batch_of([Record("new", np.ones(8, np.float32))]), whole=False))
    result = finished(check)
    assert (result.status, seen.ids) == (Status.FAILED, ["new"])
    assert (result.numbers["extra"], result.numbers["not_read"]) == (2, 0)


@pytest.mark.parametrize(
    ("was", "now", "status"),
    [
        (None, None, Status.PASSED),
        (None, {"type": "legacy"}, Status.PASSED),
        ({"type": "known", "name": "openai"}, {"type": "known", "name": "openai"}, Status.PASSED),
        ({"type": "known", "name": "openai"}, None, Status.WARNING),
        (None, {"type": "known", "name": "default"}, Status.WARNING),
        ({"type": "known", "config": {"model": "a"}}, {"type": "known", "config": {"model": "b"}}, Status.WARNING),
    ],
)
def test_the_embedding_function(
    seen: Seen, was: dict[str, Any] | None, now: dict[str, Any] | None, status: Status
) -> None:
    check = EmbeddingCheck(seen)
    target = replace(TARGET, spec=replace(SPEC, embedding_function=was))
    end = whole(target=target, collection=Collection(replace(SPEC, embedding_function=now), "k"))
    assert finished(check, end).status is status
    assert [one.field for _, one in seen] == ([] if status is Status.PASSED else ["embedding_function"])


def test_lost_vectors(seen: Seen) -> None:
    check = EmbeddingCheck(seen)
    check.observe(part(RECORDS[1:], lost=[RECORDS[0].id]))
    check.observe(part(RECORDS[:1], RECORDS[:1], whole=False))
    result = finished(check)
    assert (result.status, seen.ids) == (Status.FAILED, [RECORDS[0].id])
    assert result.numbers["not_read"] == 0


@pytest.mark.parametrize(
    ("state", "status", "field"),
    [
        ({"proven": "cosine"}, Status.FAILED, "metric"),
        ({"collection": Collection(replace(SPEC, space="ip"), "k")}, Status.FAILED, "metric"),
        ({"collection": Collection(replace(SPEC, hnsw={"ef_search": 10}), "k")}, Status.WARNING, "ef_search"),
        ({"collection": Collection(replace(SPEC, hnsw={"max_neighbors": 10}), "k")}, Status.PASSED, None),
        ({"index_error": "Error finding id"}, Status.FAILED, "index"),
    ],
)
def test_the_index_itself(seen: Seen, state: dict[str, Any], status: Status, field: str | None) -> None:
    result = finished(EmbeddingCheck(seen), whole(**state))
    assert result.status is status
    assert [one.field for _, one in seen] == ([field] if field else [])


# 3, 7 and 8


def metadata_checks(found: Part, seen: Seen) -> tuple[CheckResult, CheckResult, CheckResult]:
    checks = MetadataCheck(seen), FieldTypeCheck(seen, SERGIO), CitationCheck(seen, SERGIO)
    for check in checks:
        check.observe(found)
    results = [finished(check) for check in checks]
    return results[0], results[1], results[2]


FIELDS: dict[str, Any] = {
    "author": "Sergio",
    "language": "en",
    "source_line": 3,
    "authenticity_score": 0.5,
    "disputed": False,
    "if_citation_uri": "if://citation/a-2025-01-31",
    "tags": ["a", "b"],
    "free": 1.5,
}


@pytest.mark.parametrize(
    ("change", "test", "field"),
    [
        ({"author": None}, 3, "author"),
        ({"author": "Nobody"}, 3, "author"),
        ({"stale": "x"}, 3, "stale"),
        ({"tags": ["b", "a"]}, 3, "tags"),
        ({"tags": None}, 3, "tags"),
        ({"free": 1.25}, 3, "free"),
        ({"source_line": 4}, 3, "source_line"),
        ({"source_line": 3.0}, 7, "source_line"),
        ({"source_line": -1}, 7, "source_line"),
        ({"source_line": True}, 7, "source_line"),
        ({"disputed": "false"}, 7, "disputed"),
        ({"disputed": 0}, 7, "disputed"),
        ({"language": "fr"}, 7, "language"),
        ({"authenticity_score": 1.01}, 7, "authenticity_score"),
        ({"tags": "a"}, 7, "tags"),
        ({"tags": [1, 2]}, 7, "tags"),
        ({"free": "1.5"}, 7, "free"),
        ({"if_citation_uri": "if://citation/a-2025-02-30"}, 8, "if_citation_uri"),
        ({"if_citation_uri": "https://example.org"}, 8, "if_citation_uri"),
        ({"if_citation_uri": "if://citation/b"}, 3, "if_citation_uri"),
        ({"if_citation_uri": 7}, 7, "if_citation_uri"),
    ],
)
def test_a_difference_belongs_to_one_test(seen: Seen, change: dict[str, Any], test: int, field: str) -> None:
    before = [replace(one, metadata=FIELDS) for one in RECORDS]
    now = {key: value for key, value in {**FIELDS, **change}.items() if value is not None}
    after = [replace(one, metadata=now) if n == 7 else one for n, one in enumerate(before)]
    results = metadata_checks(part(after, before, rules=SERGIO.rules("sergio_corpus")), seen)
    assert [(number, one.id, one.field) for number, one in seen] == [(test, RECORDS[7].id, field)]
    assert [one.number for one in results if one.status is Status.FAILED] == [test]


def test_floats_within_two_ulp_are_counted_not_accused(seen: Seen) -> None:
    before = [replace(one, metadata={"free": 0.1}) for one in RECORDS]
    after = [replace(one, metadata={"free": float(np.nextafter(0.1, 1))}) for one in RECORDS[:2]] + before[2:]
    metadata, types, _ = metadata_checks(part(after, before), seen)
    assert (metadata.status, types.status, seen) == (Status.PASSED, Status.PASSED, [])
    assert metadata.numbers["rounded_floats"] == 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"document": ""}, {"document": None}),
        ({"document": None}, {"document": ""}),
        ({"uri": "file:///a"}, {"uri": None}),
        ({"document": "a"}, {"document": "a "}),
    ],
)
def test_texts_belong_to_metadata(seen: Seen, before: dict[str, Any], after: dict[str, Any]) -> None:
    results = metadata_checks(part(but(2, **after), but(2, **before)), seen)
    assert seen.ids == [RECORDS[2].id]
    assert [one.status for one in results] == [Status.FAILED, Status.PASSED, Status.PASSED]


def test_a_field_named_document_is_a_field(seen: Seen) -> None:
    before = [replace(one, metadata={"document": 1, "embedding": True, "id": "x"}) for one in RECORDS]
    after = [replace(one, metadata={"document": 1.0, "embedding": True, "id": "x"}) for one in RECORDS[:1]] + before[1:]
    metadata_checks(part(after, before), seen)
    assert [(number, one.field) for number, one in seen] == [(7, "document")]


def test_the_collections_own_metadata(seen: Seen) -> None:
    same = Collection(replace(SPEC, metadata={"owner": "ü"}), "k")
    assert finished(MetadataCheck(seen), whole(collection=same)).status is Status.PASSED
    other = Collection(replace(SPEC, metadata={"owner": "u"}), "k")
    assert finished(MetadataCheck(seen), whole(collection=other)).status is Status.WARNING


def test_what_is_extra_is_held_against_the_rules(seen: Seen) -> None:
    odd = [Record("x", RECORDS[0].embedding, None, None, {"language": "fr", "if_citation_uri": "nonsense", "n": 1})]
    extra = Extra(TARGET, batch_of(odd))
    for check in (FieldTypeCheck(seen, SERGIO), CitationCheck(seen, SERGIO)):
        check.observe_extra(extra)
        assert check.result().status is Status.FAILED
    assert [(number, one.field) for number, one in seen] == [(7, "language"), (8, "if_citation_uri")]


def test_a_profile_without_citations_skips_their_test(seen: Seen) -> None:
    check = CitationCheck(seen, IDENTITY)
    check.observe(part(RECORDS))
    assert check.result().status is Status.SKIPPED


# 5 and 6


def test_distribution(seen: Seen) -> None:
    result = finished(DistributionCheck(seen))
    assert result.status is Status.PASSED
    assert result.numbers["collections"]["sergio_corpus"]["new_share"] == 1.0
    assert any("other" in note for note in result.notes)


def test_a_record_in_a_wrong_collection(seen: Seen) -> None:
    end = whole()
    end.misplaced.append(Misplaced("x", "sergio_humor", "sergio_corpus"))
    assert finished(DistributionCheck(seen), end).status is Status.FAILED
    assert [(one.id, one.expected, one.actual) for _, one in seen] == [("x", "sergio_humor", "sergio_corpus")]


def test_a_collection_that_is_not_there(seen: Seen) -> None:
    assert finished(DistributionCheck(seen), whole(collection=None, ids=0)).status is Status.FAILED


def test_content_that_became_the_same_is_a_warning(seen: Seen) -> None:
    check = DuplicateCheck(seen)
    check.observe(part(but(4, document=RECORDS[3].document)))
    assert finished(check).status is Status.WARNING
    assert seen.ids == [RECORDS[4].id]


def test_content_that_was_the_same_is_a_note(seen: Seen) -> None:
    same = but(4, document=RECORDS[3].document)
    check = DuplicateCheck(seen)
    check.observe(part(same[:4], same[:4]))
    check.observe(part(same[4:], same[4:]))
    result = finished(check)
    assert (result.status, seen) == (Status.PASSED, [])
    assert result.numbers["duplicate_content_in_old_too"] == 1
    assert result.notes


def test_records_without_a_text_are_no_duplicates(seen: Seen) -> None:
    none = [replace(one, document=None) for one in RECORDS[:15]] + [replace(one, document="") for one in RECORDS[15:]]
    check = DuplicateCheck(seen)
    check.observe(part(none, none))
    assert finished(check).status is Status.PASSED


def test_ids_that_are_there_twice(seen: Seen) -> None:
    end = whole(doubled=["x"])
    end.copies.append(Misplaced("y", "sergio_humor", "sergio_corpus"))
    assert finished(DuplicateCheck(seen), end).status is Status.FAILED
    assert seen.ids == ["x", "y"]
