"""Filling one new collection: read, embed what has no embedding, write, note, read back and compare, all at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from app.core.chroma.bulk import Bulk, pages_of
from app.core.chroma.writer import Entries
from app.core.errors import ChromaFailed, RebuildFailed, RecordsRefused, TextRefused
from app.core.flow import Stage, Stop, flow
from app.core.index.compare import differences
from app.core.index.rebuild_embed import Embedder, Keeper
from app.core.index.rebuild_ledger import Difference, Ledger
from app.core.index.rebuild_source import Part, Rows, Source
from app.core.memory.record import document_of, index_id, memory_id, metadata_of, text_of

log = logging.getLogger(__name__)

WRITERS = 2
READERS = 2
EMBEDDERS = 2
# More records than this, or than every twentieth, are nobody's own fault.
TROUBLES = 100


@dataclass(slots=True)
class Piece:
    """Some records on their way. `anew`: they are embedded whatever is stored; `replacing`: they may be there."""

    rows: Rows
    anew: bool = False
    replacing: bool = False
    entries: Entries | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """What every part of a rebuild is made with."""

    source: Source
    ledger: Ledger
    embedder: Embedder
    keeper: Keeper
    stop: Stop
    advance: Callable[[int], None]


class Fill:
    """One new collection. `troubles` are the records that Chroma does not take or give back as they are, and why."""

    def __init__(self, part: Part, bulk: Bulk, tools: Tools) -> None:
        self._part = part
        self._bulk = bulk
        self._tools = tools
        self._lock = threading.Lock()
        self._most = max(TROUBLES, part.records // 20)
        self._counted = False
        self._anew = False
        self.troubles: dict[int, str] = {}
        self.refused: set[int] = set()
        self.embedded = 0
        self.caught_up = 0
        self.sample: NDArray[float32] | None = None

    def load(self, *, anew: bool) -> None:
        """Everything, once; with `anew` every embedding is made again."""
        self._tools.ledger.begin()
        self._counted, self._anew = True, anew
        self._through(Piece(rows, anew=anew) for rows in self._tools.source.pages(self._part))
        self._counted = False

    def catch_up(self, found: Difference) -> None:
        """Bring about the difference."""
        ledger, source = self._tools.ledger, self._tools.source
        if found.gone:
            self._bulk.remove([index_id(id_) for id_ in found.gone])
            ledger.forget(found.gone)
            self._settled(found.gone)
        # what is not loaded yet may be what somebody had locked, so that its new embedding could not be stored
        self._through(Piece(rows, anew=self._anew, replacing=True) for rows in source.some(self._part, found.fresh))
        self._through(Piece(rows, replacing=True) for rows in source.some(self._part, found.changed))
        self.caught_up += len(found)

    def expected(self) -> set[str]:
        """The ids that the collection has to hold."""
        return {index_id(id_) for id_ in self._tools.ledger.ids() if id_ not in self.refused}

    def forget(self, ids: Iterable[str]) -> None:
        """These turned out not to be there; catching up brings them."""
        self._tools.ledger.forget([memory_id(id_) for id_ in ids])

    def prove(self) -> None:
        """Read back everything once more that is still as it was loaded."""
        same = self._tools.ledger.same
        pieces = (Piece(rows) for rows in self._tools.source.pages(self._part))

        def unchanged(piece: Piece) -> None:
            kept = same(piece.rows.ids, piece.rows.versions) - self.refused
            piece.rows = piece.rows.take([row for row, id_ in enumerate(piece.rows.ids) if id_ in kept])
            self._prepare(piece)

        flow(pieces, [Stage(unchanged), Stage(self._verify, READERS)], self._tools.stop)

    def right_in(self, live: Bulk) -> list[int]:
        """Those of the troubled records that another collection holds as they should be."""
        right: list[int] = []
        for rows in self._tools.source.some(self._part, sorted(self.troubles)):
            entries, kept, _ = prepared(rows, bare=True)
            columns, _ = live.read(entries.ids)
            wrong = differences(entries, columns)
            right += [rows.ids[row] for row in kept if index_id(rows.ids[row]) not in wrong]
        return right

    def _through(self, pieces: Iterable[Piece]) -> None:
        stages = [
            Stage(self._embed, EMBEDDERS),
            Stage(self._keep, 1),
            Stage(self._write, WRITERS),
            Stage(self._note),
            Stage(self._verify, READERS),
        ]
        flow(pieces, stages, self._tools.stop)

    def _embed(self, piece: Piece) -> None:
        rows = piece.rows
        if piece.anew:
            rows.current[:] = False
        need = [row for row in range(len(rows)) if not rows.current[row]]
        rows.vectors[need] = np.nan
        empty = {row: "it has no text" for row in need if not isinstance(rows.raw_datas[row].get("content"), str)}

        def embed(part: Sequence[int]) -> None:
            rows.vectors[list(part)] = self._tools.embedder.embed([text_of(rows.raw_datas[row]) for row in part])

        refused = self._by_halves([row for row in need if row not in empty], embed)
        self._trouble({rows.ids[row]: why for row, why in (empty | refused).items()}, absent=True)

    def _keep(self, piece: Piece) -> None:
        """Store what was embedded. Records that changed meanwhile, or are locked, are left to the catching up."""
        rows = piece.rows
        made = [row for row in range(len(rows)) if not rows.current[row] and not np.isnan(rows.vectors[row, 0])]
        if not made:
            return
        part = rows.take(made)
        kept = self._tools.keeper.keep(part.ids, part.versions, part.vectors)
        self.embedded += len(kept)
        for row in made:
            rows.versions[row] = kept.get(rows.ids[row], 0)
        piece.rows = rows.take([row for row in range(len(rows)) if rows.versions[row]])

    def _write(self, piece: Piece) -> None:
        self._prepare(piece)
        written: list[str] = []
        if piece.entries is not None:
            write = self._bulk.replace if piece.replacing else self._bulk.add
            whole = piece.entries
            refused = self._by_halves(range(len(whole.ids)), lambda part: write(some(whole, part)))
            self._trouble({memory_id(whole.ids[row]): why for row, why in refused.items()}, absent=True)
            taken = some(whole, [row for row in range(len(whole.ids)) if row not in refused])
            written = list(taken.ids)
            piece.entries = taken if written else None
        if piece.replacing:
            self._bulk.remove(sorted({index_id(id_) for id_ in piece.rows.ids} - set(written)))
            self._settled(map(memory_id, written))

    def _prepare(self, piece: Piece) -> None:
        """What Chroma is to hold. A record without an embedding is one that the provider refused."""
        entries, _, unfit = prepared(piece.rows)
        self._trouble({piece.rows.ids[row]: why for row, why in unfit.items()}, absent=True)
        piece.entries = entries if entries.ids else None

    def _note(self, piece: Piece) -> None:
        self._tools.ledger.note(piece.rows.ids, piece.rows.versions)

    def _verify(self, piece: Piece) -> None:
        entries, piece.entries = piece.entries, None
        if entries is not None:
            if self.sample is None:
                self.sample = entries.vectors[0]
            for page in pages_of(entries):
                self._compare(some(entries, range(*page.indices(len(entries.ids)))))
        if self._counted:
            self._tools.advance(len(piece.rows))

    def _compare(self, entries: Entries) -> None:
        wrong = self._wrong(entries)
        if not wrong:
            return
        again = some(entries, [row for row, id_ in enumerate(entries.ids) if id_ in wrong])
        log.warning(
            "%d records came back otherwise and are written again, as %s", len(wrong), next(iter(wrong.items()))
        )
        self._bulk.replace(again)
        wrong = self._wrong(again)
        lost = [id_ for id_, what in wrong.items() if what == "missing"]
        if lost:
            raise RebuildFailed(f"Chroma took {len(lost)} records and does not give them back, as {lost[0]}.")
        self._trouble({memory_id(id_): f"comes back with another {what}" for id_, what in wrong.items()}, absent=False)

    def _wrong(self, entries: Entries) -> dict[str, str]:
        columns, unreadable = self._bulk.read(entries.ids)
        return differences(entries, columns) | dict.fromkeys(unreadable, "embedding")

    def _by_halves(self, rows: Sequence[int], work: Callable[[Sequence[int]], None]) -> dict[int, str]:
        """Do it for all at once; where some are refused, by halves, down to the ones that are to blame, with why."""
        if not rows:
            return {}
        try:
            work(rows)
        except (RecordsRefused, TextRefused, ChromaFailed) as error:
            if isinstance(error, ChromaFailed):
                self._bulk.count()  # one that cannot even count is in trouble as a whole
            if len(rows) == 1:
                return {rows[0]: str(error)}
            half = len(rows) // 2
            found = self._by_halves(rows[:half], work)
            self._bearable(len(self.troubles) + len(found), found)
            return found | self._by_halves(rows[half:], work)
        return {}

    def _trouble(self, found: dict[int, str], *, absent: bool) -> None:
        with self._lock:
            self.troubles |= found
            if absent:
                self.refused |= found.keys()
        self._bearable(len(self.troubles), found)

    def _bearable(self, number: int, found: dict[int, str]) -> None:
        if number > self._most:
            why = next(iter(found.values()))
            raise RebuildFailed(
                f"{number} records of {self._part.collection} cannot be indexed; of the last one: {why}"
            )

    def _settled(self, ids: Iterable[int]) -> None:
        with self._lock:
            for id_ in ids:
                self.troubles.pop(id_, None)
                self.refused.discard(id_)


def prepared(rows: Rows, *, bare: bool = False) -> tuple[Entries, list[int], dict[int, str]]:
    """What Chroma is to hold of these records, which of them that are, and why others have no form for it.

    Records without an embedding are in neither, or with `bare` among the former.
    """
    kept: list[int] = []
    documents, metadatas = [], []
    unfit: dict[int, str] = {}
    embedded = ~np.isnan(rows.vectors[:, 0]) | bare
    for row, (raw_data, created) in enumerate(zip(rows.raw_datas, rows.created, strict=True)):
        if not embedded[row]:
            continue
        try:
            document, metadata = document_of(raw_data), metadata_of(raw_data, created)
        except (AttributeError, TypeError, ValueError) as error:  # a form that another program gave it
            unfit[row] = f"its raw_data is not a memory's: {error}"
            continue
        kept.append(row)
        documents.append(document)
        metadatas.append(metadata)
    ids = [index_id(rows.ids[row]) for row in kept]
    vectors = rows.vectors if len(kept) == len(rows) else rows.vectors[kept]
    return Entries(ids, vectors, documents, metadatas), kept, unfit


def some(entries: Entries, rows: Sequence[int]) -> Entries:
    """The given ones of them."""
    if len(rows) == len(entries.ids):
        return entries
    return Entries(
        [entries.ids[row] for row in rows],
        entries.vectors[list(rows)],
        [entries.documents[row] for row in rows],
        [entries.metadatas[row] for row in rows],
    )
