"""The proof: every record read back from the target and compared, value by value, with what should be there."""

from __future__ import annotations

import threading
from collections import Counter

from chromactl import metric
from chromactl.compare import Comparison, Difference
from chromactl.digest import CollectionDigest
from chromactl.migrate.flow import Stage, flow
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Piece, Plan, PlannedTarget
from chromactl.stores.base import Batch, Collection, Source

SAMPLE = 25
"""Records of a piece that a resumed run reads again although they were proven: the target may have been hurt since."""


class Prove:
    """The step of the proof, and what it found; threads may take it with several pieces at once."""

    def __init__(
        self,
        passage: Passage,
        plan: Plan,
        folder: RunFolder,
        store: Source,
        collections: dict[str, Collection],
        *,
        note: bool = True,
        to_the_end: bool = True,
    ) -> None:
        """`collections` are those of the store to be read, by the targets' names.

        Without `note` the ledger is only read: the proof of what a finished run left, or of what is found there.
        Without `to_the_end` nothing more is read once there is a difference.
        """
        self._passage = passage
        self._folder = folder
        self._store = store
        self._collections = collections
        self._targets = {target.name: target for target in plan.targets}
        self._note = note
        self._to_the_end = to_the_end
        self._proven_before = {(entry["collection"], entry["number"]) for entry in folder.entries("verify")}
        self._lock = threading.Lock()
        self._digests: dict[str, CollectionDigest] = {}
        self._some_ids: dict[str, list[str]] = {}
        self.comparisons: dict[str, Comparison] = {name: Comparison() for name in collections}

    def __call__(self, piece: Piece) -> None:
        """Compare the piece; some records of it only, if it was found right before."""
        step = (piece.planned.name, piece.number)
        if (self._note and self._folder.entry("import", *step) is None) or (self.differ and not self._to_the_end):
            piece.forget()
            return
        before = self._note and step in self._proven_before
        parts = self._passage.expected(self._folder, piece) if piece.parts is None else piece.parts
        compared: dict[str, Comparison] = {}
        digests: dict[str, str] = {}
        for name, part in parts.items():
            if name in self._collections:
                compared[name], digests[name] = self._compare(name, _some(part) if before else part)
        piece.forget()
        if self._note and not before and not any(comparison.differences for comparison in compared.values()):
            self._folder.note(
                "verify",
                *step,
                compared={name: comparison.compared for name, comparison in compared.items()},
                rounded_embeddings=sum(comparison.rounded_embeddings for comparison in compared.values()),
                rounded_floats=sum(comparison.rounded_floats for comparison in compared.values()),
                digests=digests,
            )

    def _compare(self, name: str, part: Batch) -> tuple[Comparison, str]:
        actual, _ = self._store.read(self._collections[name], part.ids)
        comparison = Comparison()
        comparison.add(part, actual, space=self._targets[name].spec.space)
        digest = CollectionDigest()
        digest.add(actual)
        with self._lock:
            self.comparisons[name].merge(comparison)
            self._digests.setdefault(name, CollectionDigest()).add_digest(digest.hexdigest(), digest.count)
            self._some_ids.setdefault(name, actual.ids[:5])
        return comparison, digest.hexdigest()

    def as_a_whole(self, name: str, records: int) -> None:
        """Compare what no piece can show: how many records there are, and the metric that the index answers in."""
        store, collection, space = self._store, self._collections[name], self._targets[name].spec.space
        found = self.comparisons[name].differences
        if (count := store.count(collection)) != records:
            found.append(Difference("", "number of records", str(records), str(count)))
        ids = self._some_ids.get(name) or (store.ids(collection) if count else [])
        if (proven := metric.prove(store, collection, ids)) not in (None, space):
            found.append(Difference("", "metric", space, str(proven)))

    @property
    def differ(self) -> bool:
        """Whether anything was found that is not as it should be."""
        return any(comparison.differences for comparison in self.comparisons.values())

    def digest(self, name: str) -> str:
        """The digest of all that was read of this target here."""
        return self._digests.get(name, CollectionDigest()).hexdigest()


def prove_all(prove: Prove, plan: Plan, targets: list[PlannedTarget], workers: int) -> None:
    """Compare all that the plan brings to these targets, whoever brought it there."""
    sources = {source for target in targets for source in target.sources}
    flow((piece for piece in plan.pieces() if piece.planned.name in sources), [Stage(prove, workers)])
    for target in targets:
        if prove.comparisons[target.name].differences:
            return
        prove.as_a_whole(target.name, prove.comparisons[target.name].compared)


def proven(folder: RunFolder) -> tuple[Counter[str], dict[str, str], Comparison]:
    """What the ledger says was proven: records and digest of each target, and the roundings of all."""
    records: Counter[str] = Counter()
    sums: dict[str, CollectionDigest] = {}
    rounding = Comparison()
    for entry in folder.entries("verify"):
        records.update(entry["compared"])
        rounding.rounded_embeddings += entry["rounded_embeddings"]
        rounding.rounded_floats += entry["rounded_floats"]
        for name, digest in entry["digests"].items():
            sums.setdefault(name, CollectionDigest()).add_digest(digest, entry["compared"][name])
    return records, {name: digest.hexdigest() for name, digest in sums.items()}, rounding


def _some(batch: Batch) -> Batch:
    return batch.take(range(0, len(batch), max(1, len(batch) // SAMPLE)))
