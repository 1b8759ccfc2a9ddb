"""How long a whole, verified migration takes, as a ratio to bare inserts of the same records on the same machine.

Every way of moving the data gets a fresh 1.5.9 server; all are run in turn, several times, and medians compared.

    python bench/migrate.py [--chunks 9832] [--dim 768] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from time import perf_counter

import chromadb

from chromactl import location
from chromactl.console import Console
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.engine import migrate
from chromactl.sample import Sample, make
from chromactl.schema.profile import load
from chromactl.schema.transform import Transform
from chromactl.stores.base import Batch, Collection, CollectionSpec, concatenate
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.opening import Access
from chromactl.stores.serving import OwnServer

BATCH = 1000
NAIVE_BATCH = 100

Finished = list[tuple[CollectionSpec, list[Batch]]]


def finished_records(sample: Sample) -> Finished:
    """The records as they are after the transform, ready to be written."""
    profile = load("sergio")
    return [
        (sample.spec(name), [Transform(profile, name).apply(batch)[0] for batch in sample.batches(name)])
        for name in sample.sizes()
    ]


def bare_inserts(records: Finished, server: OwnServer, work: Path) -> None:
    """Nothing but the writes: one writer, large batches, no reading back."""
    with closing(HttpTarget(server.url)) as store:
        for spec, batches in records:
            collection = store.stage(spec, "bench")
            held: list[Batch] = []
            for batch in batches:
                held.append(batch)
                if sum(map(len, held)) >= BATCH:
                    _write(store, collection, held)
            _write(store, collection, held)


def _write(store: HttpTarget, collection: Collection, held: list[Batch]) -> None:
    if held:
        store.write(collection, concatenate(held, held[0].dimension))
        held.clear()


def whole_migration(source: OwnServer) -> Callable[[Finished, OwnServer, Path], None]:
    """`chromactl migrate`: export, transform, validate, import, verify every record, swap."""

    def run(records: Finished, server: OwnServer, work: Path) -> None:
        config = MigrateConfig(
            source=Access(location.parse(source.url), "source"),
            target=Access(location.parse(server.url), "target"),
            profile=load("sergio"),
            checkpoint_dir=work / "checkpoints",
            log_dir=work / "logs",
            backup_dir=work / "backups",
            batch_size=BATCH,
        )
        migrate(config, Console(quiet=True))

    return run


def naive_loop(source: OwnServer) -> Callable[[Finished, OwnServer, Path], None]:
    """Chroma's own client, one thread, batches of 100, nothing transformed, nothing verified."""

    def run(records: Finished, server: OwnServer, work: Path) -> None:
        old, new = (
            chromadb.HttpClient(host="127.0.0.1", port=int(one.url.rpartition(":")[2])) for one in (source, server)
        )
        for name in [collection.name for collection in old.list_collections()]:
            theirs = old.get_collection(name, embedding_function=None)
            ours = new.create_collection(name, embedding_function=None, metadata={"hnsw:space": "cosine"})
            for offset in range(0, theirs.count(), NAIVE_BATCH):
                page = theirs.get(limit=NAIVE_BATCH, offset=offset, include=["embeddings", "documents", "metadatas"])
                ours.add(
                    ids=page["ids"],
                    embeddings=page["embeddings"],
                    documents=page["documents"],
                    metadatas=page["metadatas"],
                )

    return run


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=9832)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sample = Sample(options.chunks, options.dim)
    records = finished_records(sample)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        source = OwnServer(root / "source")
        stack.callback(source.stop)
        with closing(HttpTarget(source.url)) as store:
            make(sample, store, Console(quiet=True))
        ways = {
            "bare inserts": bare_inserts,
            "chromactl migrate, everything verified": whole_migration(source),
            "naive client loop, nothing verified": naive_loop(source),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(options.rounds):
            for name, way in ways.items():
                work = root / f"{number}-{len(seconds[name])}-{name.split()[0]}"
                server = OwnServer(work / "target")
                try:
                    begun = perf_counter()
                    way(records, server, work)
                    seconds[name].append(perf_counter() - begun)
                finally:
                    server.stop()
    floor = statistics.median(seconds["bare inserts"])
    print(f"{options.chunks} records of dimension {options.dim}, {options.rounds} rounds, Chroma 1.5.9 to 1.5.9")
    print(f"{'way':42} {'median s':>9} {'min s':>7} {'ratio':>6}")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:42} {median:9.2f} {min(values):7.2f} {median / floor:6.2f}")
    if options.json:
        options.json.write_text(
            json.dumps({"chunks": options.chunks, "dim": options.dim, "seconds": seconds}, indent=2)
        )


if __name__ == "__main__":
    main()
