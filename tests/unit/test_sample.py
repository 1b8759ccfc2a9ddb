from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromactl.console import Console
from chromactl.errors import PreconditionError
from chromactl.landing import misfits
from chromactl.sample import SIZES, Sample, make
from chromactl.schema import profile
from chromactl.schema.transform import Transform
from chromactl.stores.base import Batch, concatenate
from chromactl.stores.snapshot import SnapshotStore, SnapshotTarget

RUNBOOKS = {"sergio_personality": 2350, "sergio_rhetorical": 1890, "sergio_humor": 2150, "sergio_corpus": 3442}


def whole(sample: Sample, collection: str) -> Batch:
    return concatenate(list(sample.batches(collection)), sample.dimension)


def test_the_runbooks_sizes() -> None:
    assert Sample().sizes() == RUNBOOKS
    assert sum(RUNBOOKS.values()) == 9832
    assert list(SIZES) == list(RUNBOOKS)


@given(st.integers(1, 30_000))
def test_other_sizes_add_up_in_the_same_proportions(chunks: int) -> None:
    sizes = Sample(chunks=chunks).sizes()
    assert sum(sizes.values()) == chunks
    assert all(abs(sizes[name] - chunks * RUNBOOKS[name] / 9832) < 1 for name in RUNBOOKS)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    one, same, other = (whole(Sample(40, 16, seed), "sergio_humor") for seed in (3, 3, 4))
    assert (one.ids, one.documents, one.metadatas) == (same.ids, same.documents, same.metadatas)
    assert one.embeddings.tobytes() == same.embeddings.tobytes()
    assert one.documents != other.documents


def test_embeddings_can_be_left_out() -> None:
    (batch,) = Sample(40, 16).batches("sergio_humor", embed=False)
    assert batch.embeddings.shape == (len(batch), 0)


@pytest.mark.parametrize("collection", SIZES)
def test_every_record_becomes_one_of_the_new_schema(collection: str) -> None:
    sample = Sample(dimension=8)
    seen = 0
    for batch in sample.batches(collection):
        targets, rejects = Transform(profile.load("sergio"), collection).apply(batch)
        assert rejects == []
        transformed = targets[collection]
        assert misfits(transformed, 8) == []
        assert misfits(batch, 8) == []
        seen += len(transformed)
    assert seen == RUNBOOKS[collection]


def test_ids_are_unique_and_vectors_have_length_one() -> None:
    batch = whole(Sample(2000, 32), "sergio_corpus")
    assert len(set(batch.ids)) == len(batch)
    assert np.allclose(np.linalg.norm(batch.embeddings, axis=1), 1, atol=1e-5)


def test_the_legacy_form_keeps_its_metric_in_the_metadata() -> None:
    spec = Sample(dimension=8).spec("sergio_humor")
    assert spec.metadata is not None
    assert spec.metadata["hnsw:space"] == spec.space == "cosine"


def test_a_snapshot_of_the_sample(tmp_path: Path) -> None:
    target = SnapshotTarget(tmp_path / "s", "chromactl sample")
    assert make(Sample(50, 8), target, Console(quiet=True))
    store = SnapshotStore(tmp_path / "s")
    assert {entry.name: store.count(entry) for entry in store.collections()} == Sample(50, 8).sizes()


def test_a_snapshot_is_not_overwritten(tmp_path: Path) -> None:
    make(Sample(50, 8), SnapshotTarget(tmp_path / "s", ""), Console(quiet=True))
    with pytest.raises(PreconditionError, match="a snapshot needs a new or empty one"):
        SnapshotTarget(tmp_path / "s", "")
