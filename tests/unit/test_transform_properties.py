"""What holds for the transform whatever the records are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chromactl.reject import Reject
from chromactl.schema import profile as profiles
from chromactl.schema.profile import Profile
from chromactl.schema.transform import Transform
from chromactl.stores.base import Batch

UNTIMED = settings(deadline=None)
SERGIO = profiles.load("sergio")
SOURCES = sorted(SERGIO.collections or {})
ROUTED = Profile.model_validate(
    {
        "name": "routed",
        "fields": {"n": {"type": "int", "from": ["n", "number"], "minimum": 0}, "from": {"default": "{collection}"}},
        "collections": {
            "spanish": {"from": ["pets", "cats"], "where": {"field": "lang", "in": ["es"]}, "ids": "{collection}/{id}"},
            "short": {
                "from": ["pets"],
                "where": [{"field": "lang", "matches": "^e"}, {"field": "n", "in": [0, 1, True, 1.0]}],
            },
            "english": {"from": ["pets"], "where": {"field": "lang", "matches": "en"}},
            "cats": {},
        },
    }
)
SCALARS = st.one_of(
    st.text(max_size=8),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
)
LISTS = st.one_of(
    *(st.lists(kind, min_size=1, max_size=3) for kind in (st.text(max_size=4), st.integers(-9, 9), st.booleans()))
)
# Keys that the rules know are made often, with values that they take as often as not.
KNOWN = {
    "lang": st.sampled_from(["es", "en", "english", "spanish", "mixed", "e", ""]),
    "language": st.sampled_from(["es", "en", "es_en", "english", "french"]),
    "n": st.one_of(st.integers(-2, 2), st.booleans(), st.sampled_from([0.0, 1.0, 0.5, "1", "x"])),
    "number": st.one_of(st.integers(-2, 2), st.sampled_from(["1", ""])),
    "line": st.one_of(st.integers(-1, 5), st.sampled_from(["7", 7.0, "x"])),
    "trait": st.sampled_from(["openness", ""]),
    "device": st.just("metaphor"),
    "humor": st.just("absurd"),
    "authenticity": st.one_of(st.floats(0, 1), st.integers(0, 2)),
    "citation": st.sampled_from(["", "if://citation/a-2025-01-01", "if://citation/a-2025-02-30"]),
    "related_frameworks": st.lists(st.sampled_from(["IFS", "ACT"]), max_size=2),
    "collection_type": st.sampled_from(["humor", "corpus"]),
    "words": st.one_of(st.integers(0, 9), st.just("9")),
}
OTHER_KEYS = st.text("xyz", min_size=1, max_size=3)


@st.composite
def metadatas(draw: st.DrawFn) -> dict[str, Any] | None:
    known = {key: draw(KNOWN[key]) for key in draw(st.sets(st.sampled_from(sorted(KNOWN)), max_size=7))}
    return known | draw(st.dictionaries(OTHER_KEYS, st.one_of(SCALARS, LISTS), max_size=3)) or None


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    ids = draw(st.lists(st.text(min_size=1, max_size=6), unique=True, max_size=8))
    texts = st.lists(st.none() | st.text(max_size=10), min_size=len(ids), max_size=len(ids))
    rows = [draw(metadatas()) for _ in ids]
    embeddings = np.arange(len(ids) * 4, dtype=np.float32).reshape(len(ids), 4)
    return Batch(ids, embeddings, draw(texts), draw(texts), rows)


def rows_of(batch: Batch) -> dict[str, tuple[Any, ...]]:
    columns = zip(batch.ids, batch.documents, batch.uris, batch.embeddings, strict=True)
    return {record: (document, uri, vector.tobytes()) for record, document, uri, vector in columns}


def same(one: Any, other: Any) -> bool:
    """Equal, down to the types of a list's members."""
    if isinstance(one, list) and isinstance(other, list):
        return [(type(value), value) for value in one] == [(type(value), value) for value in other]
    return type(one) is type(other) and one == other


@UNTIMED
@given(batches(), st.sampled_from(["pets", "cats", "unknown"]))
def test_every_record_is_in_one_target_or_rejected(batch: Batch, source: str) -> None:
    targets, rejects = Transform(ROUTED, source).apply(batch)
    landed = Counter(
        record
        for target, part in targets.items()
        for record in [one for one in batch.ids if ROUTED.target_id(source, target, one) in set(part.ids)]
    )
    assert sum(len(part) for part in targets.values()) == landed.total()
    assert all(len(part) for part in targets.values())
    assert set(landed.values()) <= {1}
    refused = {reject.id for reject in rejects}
    assert not refused & landed.keys()
    assert refused | landed.keys() == set(batch.ids)
    assert set(targets) <= set(ROUTED.targets(source))


@UNTIMED
@given(batches(), st.sampled_from(["pets", "cats"]))
def test_only_metadata_changes_and_the_ids_that_a_template_rewrites(batch: Batch, source: str) -> None:
    targets, _ = Transform(ROUTED, source).apply(batch)
    was = rows_of(batch)
    for target, part in targets.items():
        expected = {ROUTED.target_id(source, target, record): row for record, row in was.items()}
        now = rows_of(part)
        assert now == {record: expected[record] for record in now}
        order = list(expected)
        assert part.ids == sorted(part.ids, key=order.index)


@UNTIMED
@given(batches(), st.sampled_from(SOURCES))
def test_nothing_is_changed_in_the_batch_that_was_given(batch: Batch, source: str) -> None:
    before = [None if metadata is None else dict(metadata) for metadata in batch.metadatas], list(batch.ids)
    Transform(SERGIO, source).apply(batch)
    assert (batch.metadatas, batch.ids) == before


@UNTIMED
@given(batches(), st.sampled_from(SOURCES))
def test_sergio_applied_twice_changes_nothing_the_second_time(batch: Batch, source: str) -> None:
    transform = Transform(SERGIO, source)
    once, _ = transform.apply(batch)
    for part in once.values():
        twice, rejects = transform.apply(part)
        assert rejects == []
        assert twice[source].ids == part.ids
        for new, old in zip(twice[source].metadatas, part.metadatas, strict=True):
            assert (new or {}).keys() == (old or {}).keys()
            assert all(same(value, (old or {})[key]) for key, value in (new or {}).items())


@UNTIMED
@given(batches(), st.sampled_from(SOURCES))
def test_keys_that_no_rule_takes_keep_value_and_type(batch: Batch, source: str) -> None:
    targets, _ = Transform(SERGIO, source).apply(batch)
    was = dict(zip(batch.ids, batch.metadatas, strict=True))
    for part in targets.values():
        for record, metadata in zip(part.ids, part.metadatas, strict=True):
            others = {key: value for key, value in (was[record] or {}).items() if set(key) <= set("xyz")}
            assert all(same((metadata or {})[key], value) for key, value in others.items())


@UNTIMED
@given(batches(), st.sampled_from(SOURCES))
def test_what_lands_is_of_the_profiles_types(batch: Batch, source: str) -> None:
    targets, _ = Transform(SERGIO, source).apply(batch)
    rules = SERGIO.rules(source)
    for part in targets.values():
        for metadata in part.metadatas:
            found = {key: type(value).__name__ for key, value in (metadata or {}).items() if key in rules}
            assert found == {key: rules[key].type for key in found}
            assert {key for key, rule in rules.items() if rule.required} <= found.keys()


class Silent:
    """A trace that looks away."""

    def rule(self, target: str, name: str, what: str, detail: str = "") -> None: ...

    def passed(self, target: str, keys: Iterable[str]) -> None: ...

    def rejected_by(self, target: str, reject: Reject) -> None: ...


@UNTIMED
@given(batches(), st.sampled_from([(ROUTED, "pets"), *((SERGIO, source) for source in SOURCES)]))
def test_to_be_watched_changes_nothing(batch: Batch, case: tuple[Profile, str]) -> None:
    targets, rejects = Transform(*case).apply(batch)
    watched, also = Transform(*case, Silent()).apply(batch)
    assert also == rejects
    assert [(name, part.ids, part.metadatas) for name, part in watched.items()] == [
        (name, part.ids, part.metadatas) for name, part in targets.items()
    ]


@UNTIMED
@given(batches())
def test_identity_hands_on_the_very_batch(batch: Batch) -> None:
    targets, rejects = Transform(profiles.load("identity"), "any").apply(batch)
    assert rejects == []
    assert [part is batch for part in targets.values()] == [True] * bool(len(batch))
