"""What stores/base.py promises of every store, as tests. A subclass says how a store is made.

class TestSnapshot(StoreContract):
    @pytest.fixture
    def place(self, tmp_path): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from chromactl.compare import Comparison, Difference
from chromactl.errors import PreconditionError
from chromactl.stores.base import Collection, Source, Target
from support.records import Made, Record, batch_of, nasty, plain, spec_of

RUN = "20260101T000000-abcdef"
LATER_RUN = "20260102T000000-abcdef"


@dataclass(frozen=True, slots=True)
class Place:
    """An empty database: the target that fills it, and how to open what is there as a source afterwards."""

    target: Target
    again: Callable[[], Source]


class StoreContract:
    """The promises. `lists`: takes lists as metadata; `indexed`: answers queries; `keeps`: live collections can be
    replaced, and interrupted runs taken up."""

    lists: ClassVar[bool] = True
    indexed: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        """An empty database."""
        pytest.fail("a store contract is run by a class that says what store it is of")

    # Writing, then reading what is there

    def test_nothing_is_there_at_first(self, place: Place) -> None:
        assert place.target.collections() == []

    @pytest.mark.parametrize("space", ["l2", "cosine", "ip"])
    def test_every_record_comes_back_as_it_was(self, place: Place, space: str) -> None:
        made = Made("pets", space, nasty(lists=self.lists))
        self._put(place.target, made)
        source = place.again()
        (collection,) = source.collections()
        assert self._differences(source, collection, made) == []
        assert source.count(collection) == len(made.records)
        assert sorted(source.ids(collection)) == sorted(record.id for record in made.records)

    def test_a_collection_comes_back_as_it_was(self, place: Place) -> None:
        made = Made("pets.of-us_1", "cosine", plain(3), {"owner": "ü", "n": 1, "f": 0.5}, {"ef_construction": 77})
        self._put(place.target, made)
        (found,) = place.again().collections()
        metadata = dict(found.spec.metadata or {})
        assert metadata.pop("hnsw:space", "cosine") == "cosine"
        assert (found.name, found.spec.space, metadata) == (made.name, "cosine", made.metadata)
        assert found.spec.dimension == 8

    def test_an_empty_collection_is_a_collection(self, place: Place) -> None:
        self._put(place.target, Made("empty", "ip", []))
        source = place.again()
        (found,) = source.collections()
        assert (found.name, found.spec.space, source.count(found), source.ids(found)) == ("empty", "ip", 0, [])
        batch, unreadable = source.read(found, [])
        assert (len(batch), unreadable) == (0, [])

    def test_collections_come_by_name(self, place: Place) -> None:
        names = ["zebra", "Ant", "mouse"]
        self._put(place.target, *(Made(name, "l2", plain(2, prefix=name)) for name in names))
        source = place.again()
        assert [entry.name for entry in source.collections()] == sorted(names)
        for entry in source.collections():
            assert sorted(source.ids(entry)) == [f"{entry.name}00000", f"{entry.name}00001"]

    def test_many_batches_make_one_collection(self, place: Place) -> None:
        records = plain(1203)
        staged = place.target.stage(spec_of(Made("pets", "l2", records)), RUN)
        for start in range(0, len(records), 200):
            place.target.write(staged, batch_of(records[start : start + 200]))
        place.target.swap([staged], RUN)
        source = place.again()
        (collection,) = source.collections()
        assert source.count(collection) == 1203
        assert self._differences(source, collection, Made("pets", "l2", records)) == []

    # Reading

    def test_reading_gives_what_exists_of_what_was_asked(self, place: Place) -> None:
        self._put(place.target, Made("pets", "l2", plain(5)))
        source = place.again()
        (collection,) = source.collections()
        batch, unreadable = source.read(collection, ["r00003", "not there", "r00001"])
        assert (sorted(batch.ids), unreadable) == (["r00001", "r00003"], [])
        batch, _ = source.read(collection, ["not there"])
        assert len(batch) == 0

    def test_text_can_be_read_without_embeddings(self, place: Place) -> None:
        records = nasty(lists=self.lists)
        self._put(place.target, Made("pets", "l2", records))
        source = place.again()
        (collection,) = source.collections()
        text = source.read_text(collection, [record.id for record in records])
        assert text.embeddings.shape == (len(records), 0)
        found = dict(zip(text.ids, zip(text.documents, text.uris, strict=True), strict=True))
        assert found == {record.id: (record.document, record.uri) for record in records}

    def test_an_index_answers_nearest_first_and_files_not_at_all(self, place: Place) -> None:
        records = plain(50)
        self._put(place.target, Made("pets", "l2", records))
        source = place.again()
        (collection,) = source.collections()
        found = source.nearest(collection, records[7].embedding, 3)
        if not self.indexed:
            assert found == []
            return
        assert found[0].id == "r00007"
        assert [near.distance for near in found] == sorted(near.distance for near in found)
        assert len(found) == 3
        filtered = source.nearest(collection, records[7].embedding, 3, {"number": {"$gte": 48}})
        assert {near.id for near in filtered} == {"r00048", "r00049"}

    # Staging and swapping

    def test_what_is_staged_can_be_read_before_it_is_live(self, place: Place) -> None:
        made = Made("pets", "l2", plain(10))
        staged = self._stage(place.target, made, RUN)
        assert place.target.count(staged) == 10
        assert self._differences(place.target, staged, made) == []
        assert "pets" not in {entry.name for entry in place.target.collections()}

    def test_a_repeated_write_doubles_nothing(self, place: Place) -> None:
        records = plain(10)
        made = Made("pets", "l2", records)
        staged = place.target.stage(spec_of(made), RUN)
        place.target.write(staged, batch_of(records[:6]))
        place.target.write(staged, batch_of(records), repeat=True)
        assert place.target.count(staged) == 10
        place.target.swap([staged], RUN)
        source = place.again()
        (collection,) = source.collections()
        assert source.count(collection) == 10
        assert self._differences(source, collection, made) == []

    def test_free_space_is_known_or_said_to_be_unknown(self, place: Place) -> None:
        free = place.target.free_bytes()
        assert free is None or free > 2**20

    def test_discarding_leaves_nothing(self, place: Place) -> None:
        staged = self._stage(place.target, Made("pets", "l2", plain(10)), RUN)
        place.target.discard(staged)
        assert place.target.collections() == []

    # What only databases promise, not files

    def test_staging_again_finds_what_an_interrupted_run_left(self, place: Place) -> None:
        made = Made("pets", "l2", plain(10))
        staged = self._stage(place.target, made, RUN)
        again = place.target.stage(spec_of(made), RUN)
        if self.keeps:
            assert again.key == staged.key
            assert place.target.count(again) == 10
        else:
            assert place.target.count(again) == 0

    def test_the_former_collection_is_kept_under_another_name(self, place: Place) -> None:
        if not self.keeps:
            return
        old, new = Made("pets", "l2", plain(4)), Made("pets", "cosine", plain(6, seed=5))
        self._put(place.target, old)
        staged = self._stage(place.target, new, LATER_RUN)
        assert place.target.swap([staged], LATER_RUN) == {"pets": f"pets--before-{LATER_RUN}"}
        source = place.again()
        found = {entry.name: entry for entry in source.collections()}
        assert set(found) == {"pets", f"pets--before-{LATER_RUN}"}
        assert found["pets"].key == staged.key
        assert self._differences(source, found["pets"], new) == []
        assert self._differences(source, found[f"pets--before-{LATER_RUN}"], old) == []

    def test_a_swap_can_be_repeated(self, place: Place) -> None:
        if not self.keeps:
            return
        self._put(place.target, Made("pets", "l2", plain(4)))
        staged = self._stage(place.target, Made("pets", "l2", plain(6)), LATER_RUN)
        kept = place.target.swap([staged], LATER_RUN)
        assert place.target.swap([staged], LATER_RUN) == kept
        assert {entry.name: place.target.count(entry) for entry in place.target.collections()} == {
            "pets": 6,
            f"pets--before-{LATER_RUN}": 4,
        }

    def test_a_discarded_collection_leaves_nothing_to_the_next(self, place: Place) -> None:
        """Chroma 1.5 hands list values of a dropped collection on (chroma issue 7594)."""
        made = Made("pets", "l2", nasty(lists=self.lists))
        place.target.discard(self._stage(place.target, made, RUN))
        bare = Made("pets", "l2", [Record(one.id, one.embedding, "d", None, None) for one in made.records])
        if not self.keeps:
            return
        staged = self._stage(place.target, bare, LATER_RUN)
        assert self._differences(place.target, staged, bare) == []

    # Amending what is live

    @pytest.mark.parametrize("space", ["l2", "cosine"])
    def test_amended_records_are_exactly_what_was_given(self, place: Place, space: str) -> None:
        """Everybody gets somebody else's content: all that can come, go, and change its type does so."""
        if not self.keeps:
            return
        old = [*nasty(lists=self.lists), *plain(30)]
        collection = self._live(place.target, Made("pets", space, old))
        for shift in range(1, len(old), 5):
            others = old[shift:] + old[:shift]
            new = [
                # Every other one keeps its embedding.
                replace(other, id=one.id, embedding=(other if number % 2 else one).embedding)
                for number, (one, other) in enumerate(zip(old, others, strict=True))
            ]
            assert place.target.amend(collection, batch_of(new), []) == []
            assert self._differences(place.target, collection, Made("pets", space, new)) == []
            assert place.target.count(collection) == len(old)
            old = new

    def test_amending_adds_and_removes_too_and_can_be_repeated(self, place: Place) -> None:
        if not self.keeps:
            return
        old, new = plain(1300), plain(200, prefix="new", seed=3)
        collection = self._live(place.target, Made("pets", "l2", old))
        changed = [replace(one, document="changed", metadata={"other": 1.5}) for one in old[:100]]
        removed = [one.id for one in old[200:1250]]
        # As after a crash in the middle.
        assert place.target.amend(collection, batch_of(changed[:70]), removed[:500]) == []
        for _ in range(2):
            assert place.target.amend(collection, batch_of([*changed, *new]), removed) == []
            left = [*changed, *old[100:200], *old[1250:], *new]
            assert sorted(place.target.ids(collection)) == sorted(one.id for one in left)
            assert self._differences(place.target, collection, Made("pets", "l2", left)) == []

    def test_a_repeated_write_of_other_content_leaves_only_that(self, place: Place) -> None:
        """The source may have changed between the write that was cut off and its repetition."""
        if not self.keeps:
            return
        old = plain(10)
        made = Made("pets", "l2", [replace(one, metadata={"other": 1}, document=None) for one in old])
        staged = self._stage(place.target, Made("pets", "l2", old[:6]), RUN)
        assert place.target.write(staged, batch_of(made.records), repeat=True) == []
        assert place.target.count(staged) == 10
        assert self._differences(place.target, staged, made) == []

    def test_files_are_never_amended(self, place: Place) -> None:
        if self.keeps:
            return
        staged = self._stage(place.target, Made("pets", "l2", plain(4)), RUN)
        with pytest.raises(PreconditionError, match="never changed once complete; give a new name"):
            place.target.amend(staged, batch_of(plain(4)), [])

    # Several threads at once

    def test_threads_may_write_and_read_at_once(self, place: Place) -> None:
        made = Made("pets", "l2", plain(1000))
        staged = place.target.stage(spec_of(made), RUN)

        def write_and_read(part: list[Record]) -> list[Difference]:
            place.target.write(staged, batch_of(part))
            return self._differences(place.target, staged, made.only(part))

        parts = [made.records[start : start + 50] for start in range(0, 1000, 50)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(write_and_read, parts)) == [[]] * 20
        place.target.swap([staged], RUN)
        source = place.again()
        (collection,) = source.collections()
        assert source.count(collection) == 1000
        assert self._differences(source, collection, made) == []

    # Tools

    def _live(self, target: Target, made: Made) -> Collection:
        self._put(target, made)
        (collection,) = target.collections()
        return collection

    def _stage(self, target: Target, made: Made, run: str) -> Collection:
        staged = target.stage(spec_of(made), run)
        if made.records:
            target.write(staged, batch_of(made.records))
        return staged

    def _put(self, target: Target, *collections: Made) -> None:
        target.swap([self._stage(target, made, RUN) for made in collections], RUN)

    def _differences(self, store: Source, collection: Collection, made: Made) -> list[Difference]:
        wanted = batch_of(made.records)
        batch, unreadable = store.read(collection, wanted.ids)
        assert unreadable == []
        assert batch.embeddings.dtype == np.float32
        comparison = Comparison()
        comparison.add(wanted, batch, space=made.space)
        assert len(batch) == len(wanted) == len(set(batch.ids))
        return comparison.differences
