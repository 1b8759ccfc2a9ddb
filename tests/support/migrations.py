"""Migrations whose requests are watched: a forwarder stands before each server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromactl.stores.snapshot import SnapshotStore
from support.command import Chromactl
from support.databases import Database
from support.ended import Ended
from support.forwarder import WRITES, forwarder
from support.moments import Watch
from support.records import Record

CHANGES = (*WRITES, "/delete")


@dataclass
class Watched:
    """A migration from one server to another, with a forwarder before each, and what passed them."""

    source: Database
    target: Database
    source_url: str
    target_url: str
    watch: Watch
    chromactl: Chromactl

    def arguments(self, *more: object) -> list[str]:
        place = ["--source-url", self.source_url, "--target-url", self.target_url]
        if "--all-databases" not in more:
            place += ["--database", self.source.name]
        profile = [] if "--profile" in more else ["--profile", "identity"]
        return ["migrate", *place, *profile, "--json", *(str(word) for word in more)]

    def run(self, *more: object) -> Ended:
        """The command, with the requests of this time only."""
        self.watch.begin()
        return self.chromactl(*self.arguments(*more))

    def report(self, *more: object) -> dict[str, Any]:
        """The report of a command that has to succeed."""
        ended = self.run(*more)
        assert ended.code == 0, ended.err
        return ended.json

    @property
    def written(self) -> set[str]:
        """The ids that the target was given."""
        return set().union(*(self.watch.asked("target", ending) for ending in WRITES))

    @property
    def deleted(self) -> set[str]:
        """The ids that the target was told to delete."""
        return self.watch.asked("target", "/delete")

    def changes(self, side: str = "target") -> list[str]:
        """The paths of all requests that change something, of records or collections."""
        reading = ("/get", "/count", "/query")
        return [path for to, path, body in self.watch.seen if to == side and body and not path.endswith(reading)]


@contextmanager
def watched(source: Database, target: Database, chromactl: Chromactl) -> Iterator[Watched]:
    """A migration from one to the other, watched."""
    watch = Watch()
    with (
        forwarder(source.url, guard=watch.guard("source")) as before,
        forwarder(target.url, guard=watch.guard("target")) as behind,
    ):
        yield Watched(source, target, before.url, behind.url, watch, chromactl)


def in_snapshot(path: str) -> dict[str, dict[str, Record]]:
    """What a snapshot holds, collection by collection."""
    store = SnapshotStore(Path(path))
    found = {}
    for collection in store.collections():
        batch, _ = store.read(collection, store.ids(collection))
        columns = zip(batch.ids, batch.embeddings, batch.documents, batch.uris, batch.metadatas, strict=True)
        found[collection.name] = {row[0]: Record(row[0], row[1], row[2], row[3], row[4]) for row in columns}
    return found
