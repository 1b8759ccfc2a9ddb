"""What is done with one piece: read and kept, examined, written (and proven: chromactl.migrate.proof).

Each step notes in the ledger that it is done, and does nothing where it was. Steps of different pieces may go on at
the same time in different threads; of one piece they follow each other.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from chromactl.digest import CollectionDigest
from chromactl.migrate import verdict
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.passage import Passage, without
from chromactl.migrate.plan import Piece, Plan
from chromactl.reject import Reject
from chromactl.snapshot.shard import read_shard, write_shard
from chromactl.stores.base import Batch, Collection, Source, Target, Unreadable
from chromactl.stores.snapshot import folder_name

log = logging.getLogger(__name__)


class Export:
    """From the source into a shard on disk."""

    def __init__(self, source: Source, folder: RunFolder) -> None:
        self._source = source
        self._folder = folder

    def __call__(self, piece: Piece) -> None:
        """Read the piece and keep it, unless it is kept already.

        A record that was deleted since the ids were taken is not there any more and not an error; one that the
        source cannot give back becomes a reject.
        """
        name = piece.planned.name
        if self._folder.entry("export", name, piece.number) is not None:
            return
        piece.batch, unreadable = self._source.read(piece.planned.source, piece.ids)
        keep(self._folder, piece, piece.batch, unreadable)


def keep(folder: RunFolder, piece: Piece, batch: Batch, unreadable: Sequence[Unreadable]) -> None:
    """Write a piece's shard and note it, and what of it the source could not give back."""
    name = piece.planned.name
    lost = [
        Reject(record, "record", "unreadable_record", entry.reason[:200])
        for entry in unreadable
        for record in entry.ids
    ]
    shard = write_shard(folder.path, f"{folder_name(name)}/{piece.number:06d}.parquet", batch)
    digest = CollectionDigest()
    digest.add(batch)
    folder.note(
        "export",
        name,
        piece.number,
        shard=asdict(shard),
        digest=digest.hexdigest(),
        unreadable=len(lost),
        rejects=verdict.lines(name, lost),
    )


class Examine:
    """Through the transform and the rules of landing. Pieces come in the plan's order, one at a time."""

    def __init__(self, passage: Passage, plan: Plan, folder: RunFolder, *, hold: bool) -> None:
        """`hold` keeps the records in memory for the steps that follow."""
        self._passage = passage
        self._folder = folder
        self._hold = hold
        self._contested = {target: frozenset(ids) for target, ids in plan.contested.items()}
        self._taken: dict[str, set[str]] = {target: set() for target in plan.contested}
        self.transform_seconds = self.validate_seconds = 0.0

    def __call__(self, piece: Piece) -> None:
        """Find out what becomes of the piece's records, unless it is known already."""
        name = piece.planned.name
        noted = self._folder.entry("examine", name, piece.number)
        if noted is not None:
            for target, ids in noted.get("took", {}).items():
                self._taken[target].update(ids)
            piece.batch = None
            return
        exported = self._folder.entry("export", name, piece.number)
        assert exported is not None  # noqa: S101 (the step before)
        batch = piece.batch
        if batch is None:
            batch = read_shard(self._folder.path, self._folder.shard(name, piece.number))
        passed = self._passage.through(piece.planned, batch)
        self.transform_seconds += passed.transform_seconds
        self.validate_seconds += passed.validate_seconds
        rejects = list(passed.rejects)
        parts = dict(passed.parts)
        left_out, took = self._duplicates(parts)
        for target, ids in left_out.items():
            rejects += [Reject(record, "id", "duplicate_id", f"another record of {target} has it") for record in ids]
            parts[target] = without(parts[target], set(ids))
        self._folder.note(
            "examine",
            name,
            piece.number,
            passed={target: len(part) for target, part in parts.items()},
            rejected=len({reject.id for reject in rejects}) + exported["unreadable"],
            reasons=Counter(reject.reason for reject in rejects)
            + Counter({"unreadable_record": exported["unreadable"]}),
            left_out=left_out,
            took=took,
            rejects=verdict.lines(name, rejects),
        )
        piece.batch = None
        piece.parts = parts if self._hold else None

    def _duplicates(self, parts: dict[str, Batch]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Of each part, the ids that another collection's record took before, and the contested ones it takes now."""
        left_out: dict[str, list[str]] = {}
        took: dict[str, list[str]] = {}
        for target in parts.keys() & self._contested.keys():
            here = [record for record in parts[target].ids if record in self._contested[target]]
            late = [record for record in here if record in self._taken[target]]
            if late:
                left_out[target] = late
            if first := [record for record in here if record not in self._taken[target]]:
                took[target] = first
                self._taken[target].update(first)
        return left_out, took


class Land:
    """Into the staged collections of the target."""

    def __init__(
        self,
        config: MigrateConfig,
        passage: Passage,
        folder: RunFolder,
        target: Target,
        staged: dict[str, Collection],
        plan: Plan,
    ) -> None:
        self._config = config
        self._passage = passage
        self._folder = folder
        self._target = target
        self._staged = staged
        self._batches = sum(-(-len(piece.ids) // config.batch_size) for piece in plan.pieces())
        self._count = itertools.count(1)
        self.doomed = threading.Event()

    def __call__(self, piece: Piece) -> None:
        """Write the piece's records, unless that was done, or nothing is to be written any more."""
        name = piece.planned.name
        if self.doomed.is_set() or self._folder.entry("import", name, piece.number) is not None:
            piece.parts = None
            return
        if piece.parts is None:
            piece.parts = self._passage.expected(self._folder, piece)
        piece.parts = {target: part for target, part in piece.parts.items() if target in self._staged}
        refused = self._deliver(piece, piece.parts)
        for target, rejects in refused.items():
            piece.parts[target] = without(piece.parts[target], {reject.id for reject in rejects})
        self._folder.note(
            "import",
            name,
            piece.number,
            records={target: len(part) for target, part in piece.parts.items()},
            left_out={target: [reject.id for reject in rejects] for target, rejects in refused.items()},
            reasons=Counter(reject.reason for rejects in refused.values() for reject in rejects),
            rejects=[line for rejects in refused.values() for line in verdict.lines(name, rejects)],
        )

    def forget_what_is_gone(self) -> None:
        """Take nothing as written or proven if the target holds fewer records than the ledger says.

        Files in the making end with the process that made them; a server may have been put back to an older state.
        """
        written: Counter[str] = Counter()
        for entry in self._folder.entries("import"):
            written.update(entry["records"])
        if any(self._target.count(collection) < written[name] for name, collection in self._staged.items()):
            self._folder.forget("import", "verify")

    def _deliver(self, piece: Piece, parts: dict[str, Batch]) -> dict[str, list[Reject]]:
        """Bring the records there; those that the target refuses."""
        name = piece.planned.name
        repeat = self._folder.entry("import-begun", name, piece.number) is not None
        self._folder.note("import-begun", name, piece.number)
        refused: dict[str, list[Reject]] = {}
        for target, part in parts.items():
            for batch in part.slices(self._config.batch_size):
                self._say_batch(target)
                if rejects := self._target.write(self._staged[target], batch, repeat=repeat):
                    refused.setdefault(target, []).extend(rejects)
        return refused

    def _say_batch(self, target: str) -> None:
        log.info("import: batch %d/%d, to %s", next(self._count), self._batches, target)
