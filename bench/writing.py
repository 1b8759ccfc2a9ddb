"""Ways that write: bare inserts, the naive loop, and filling a source to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from time import perf_counter
from typing import Any

from chromactl.sample import Sample
from chromactl.schema.profile import load
from chromactl.schema.transform import Transform
from chromactl.stores.base import Batch, concatenate
from chromactl.stores.http_target import HttpTarget

NAIVE_RECORDS = 100
_RUN = "bench"


def fill(url: str, chunks: int, dim: int) -> dict[str, Any]:
    """Put the legacy data set into an empty server of any version, under its own names."""
    sample = Sample(chunks, dim)
    return _insert(url, sample, {name: list(sample.batches(name)) for name in sample.sizes()}, 2, live=True)


def inserts(url: str, chunks: int, dim: int, batch: int, writers: int) -> dict[str, Any]:
    """Nothing but the writes: records that are finished and cut into requests before the clock starts."""
    sample, profile = Sample(chunks, dim), load("sergio")
    finished = {}
    for name in sample.sizes():
        transform = Transform(profile, name)
        finished[name] = list(in_batches((transform.apply(part)[0][name] for part in sample.batches(name)), batch))
    return _insert(url, sample, finished, writers, live=False)


def _insert(url: str, sample: Sample, records: dict[str, list[Batch]], writers: int, *, live: bool) -> dict[str, Any]:
    begun = perf_counter()
    with closing(HttpTarget(url)) as store:
        staged = {name: store.stage(sample.spec(name), _RUN) for name in records}
        with ThreadPoolExecutor(writers) as pool:
            tasks = [pool.submit(store.write, staged[name], part) for name, parts in records.items() for part in parts]
            rejects = [reject for task in tasks for reject in task.result()]
        seconds = perf_counter() - begun
        counts = {name: store.count(collection) for name, collection in staged.items()}
        if rejects or counts != sample.sizes():
            raise RuntimeError(f"{len(rejects)} records were refused, and the server counts {counts}")
        if live:
            store.swap(list(staged.values()), _RUN)
    return {"seconds": seconds, "records": sample.chunks}


def in_batches(parts: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The records of all parts, in order, in batches of `size`; the last may be smaller."""
    whole = list(parts)
    if whole:
        yield from concatenate(whole, whole[0].dimension).slices(size)


def naive(source: str, target: str) -> dict[str, Any]:
    """Chroma's own client, one thread, batches of 100, nothing transformed, nothing verified."""
    import chromadb
    from chromadb.config import Settings

    begun, records = perf_counter(), 0
    old, new = (
        chromadb.HttpClient(
            host="127.0.0.1", port=int(url.rpartition(":")[2]), settings=Settings(anonymized_telemetry=False)
        )
        for url in (source, target)
    )
    for name in [collection.name for collection in old.list_collections()]:
        theirs = old.get_collection(name, embedding_function=None)
        ours = new.create_collection(name, embedding_function=None, metadata={"hnsw:space": "cosine"})
        for offset in range(0, theirs.count(), NAIVE_RECORDS):
            page = theirs.get(limit=NAIVE_RECORDS, offset=offset, include=["embeddings", "documents", "metadatas"])
            ours.add(
                ids=page["ids"],
                embeddings=page["embeddings"],
                documents=page["documents"],
                metadatas=page["metadatas"],
            )
            records += len(page["ids"])
    return {"seconds": perf_counter() - begun, "records": records}
