"""What a delta run changes: exactly what differs between two runs' records, for each target."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chromactl.migrate.delta import CARRY, Change, Changes, carried
from chromactl.migrate.ledger import RunFolder
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import Plan, PlannedCollection, PlannedTarget
from chromactl.schema.profile import Profile
from chromactl.snapshot.shard import write_shard
from chromactl.stores.base import CollectionSpec
from support.records import Record, batch_of, plain

SPLIT = Profile.model_validate(
    {
        "name": "own",
        "collections": {
            "cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}},
            "rest": {"from": ["pets"]},
        },
    }
)
WHOLE = Profile.model_validate({"name": "own"})


def run(path: Path, profile: Profile, *pieces: list[Record]) -> tuple[RunFolder, Plan, Passage]:
    """A run that has exported these pieces of one collection."""
    folder = RunFolder(path)
    folder.make()
    spec = CollectionSpec("pets", "l2", dimension=8)
    planned = PlannedCollection("key", spec, [[record.id for record in piece] for piece in pieces])
    targets = [PlannedTarget(rule, replace(spec, name=rule), ["pets"]) for rule in profile.targets("pets")]
    plan = Plan([planned], targets, [])
    for number, piece in enumerate(pieces):
        shard = write_shard(path, f"pets/{number:06d}.parquet", batch_of(piece))
        folder.note("export", "pets", number, shard=asdict(shard), unreadable=0)
    return folder, plan, Passage(profile, plan)


def changes_of(
    path: Path, before: list[list[Record]], now: list[list[Record]], profile: Profile = WHOLE
) -> list[dict[str, Change]]:
    """The changes of each piece."""
    base_folder, base_plan, base = run(path / "base", profile, *before)
    folder, plan, passage = run(path / "now", profile, *now)
    changes = Changes(passage, folder, base, base_plan, base_folder)
    return [changes.of(piece, passage.expected(folder, piece)) for piece in plan.pieces()]


def said(change: Change) -> tuple[list[str], list[str], list[str]]:
    return change.put.ids, change.changed, change.removed


def of_kind(record: Record, kind: str) -> Record:
    return replace(record, metadata={"kind": kind})


def test_what_is_the_same_is_not_touched(tmp_path: Path) -> None:
    records = plain(5)
    (change,) = changes_of(tmp_path, [records], [records[::-1]])
    assert said(change["pets"]) == ([], [], [])
    assert change["pets"].counts == {"added": 0, "changed": 0, "removed": 0}


def test_added_changed_and_removed_are_told_apart(tmp_path: Path) -> None:
    one, two, three, four = plain(4)
    other = replace(two, document="other")
    (change,) = changes_of(tmp_path, [[one, two, three]], [[one, other, four]])
    assert said(change["pets"]) == ([two.id, four.id], [two.id], [three.id])
    assert change["pets"].put.documents == ["other", four.document]
    assert change["pets"].counts == {"added": 1, "changed": 1, "removed": 1}


DIFFERENT: dict[str, dict[str, Any]] = {
    "document": {"document": None},
    "empty document": {"document": ""},
    "uri": {"uri": None},
    "value": {"metadata": {"a": 2, "l": [1, 2]}},
    "type": {"metadata": {"a": 1.0, "l": [1, 2]}},
    "bool": {"metadata": {"a": True, "l": [1, 2]}},
    "key gone": {"metadata": {"a": 1}},
    "list": {"metadata": {"a": 1, "l": [1]}},
    "list's type": {"metadata": {"a": 1, "l": [1.0, 2.0]}},
    "none": {"metadata": None},
    "embedding": {"embedding": np.arange(1, 9, dtype=np.float32)},
    "embedding's last bit": {"embedding": np.nextafter(np.arange(8, dtype=np.float32), np.float32(99))},
}


@pytest.mark.parametrize("difference", DIFFERENT.values(), ids=DIFFERENT)
def test_the_smallest_difference_counts(tmp_path: Path, difference: dict[str, Any]) -> None:
    record = Record("r", np.arange(8, dtype=np.float32), "text", "file:///a", {"a": 1, "l": [1, 2]})
    (change,) = changes_of(tmp_path, [[record, *plain(2)]], [[replace(record, **difference), *plain(2)]])
    assert said(change["pets"]) == (["r"], ["r"], [])


def test_a_piece_that_was_not_there_is_all_added_and_an_emptied_one_all_removed(tmp_path: Path) -> None:
    emptied, new = changes_of(tmp_path, [plain(3)], [[], plain(2, prefix="new")])
    assert said(emptied["pets"]) == ([], [], [record.id for record in plain(3)])
    assert said(new["pets"]) == (["new00000", "new00001"], [], [])


def test_a_record_moves_from_one_target_to_another(tmp_path: Path) -> None:
    one, two, three = plain(3)
    before = [of_kind(one, "cat"), of_kind(two, "dog"), of_kind(three, "dog")]
    now = [of_kind(one, "dog"), of_kind(two, "dog"), of_kind(three, "dog")]
    (change,) = changes_of(tmp_path, [before], [now], SPLIT)
    assert said(change["cats"]) == ([], [], [one.id])
    assert said(change["rest"]) == ([one.id], [], [])


def test_what_the_finished_run_left_out_counts_as_not_there(tmp_path: Path) -> None:
    """A record that the target refused, or that another one's id kept out."""
    records = plain(4)
    base_folder, base_plan, base = run(tmp_path / "base", WHOLE, records)
    base_folder.note("import", "pets", 0, left_out={"pets": [records[1].id, records[2].id]})
    now = [records[0], replace(records[1], document="shorter"), records[3]]
    folder, plan, passage = run(tmp_path / "now", WHOLE, now)
    (piece,) = plan.pieces()
    change = Changes(passage, folder, base, base_plan, base_folder).of(piece, passage.expected(folder, piece))
    assert said(change["pets"]) == ([records[1].id], [], [])


ids = st.lists(st.integers(0, 12), unique=True, max_size=8)


@given(before=ids, now=ids, touched=st.sets(st.integers(0, 12)))
def test_putting_and_removing_leads_from_one_to_the_other(
    tmp_path_factory: pytest.TempPathFactory, before: list[int], now: list[int], touched: set[int]
) -> None:
    records = plain(13)
    moved = {number: replace(records[number], document="other") if number in touched else records[number]
             for number in range(13)}  # fmt: skip
    (change,) = changes_of(tmp_path_factory.mktemp("run"), [[records[n] for n in before]], [[moved[n] for n in now]])
    state = {records[number].id: records[number].document for number in before}
    found = change.get("pets")
    if found is not None:
        for record in found.removed:
            del state[record]
        state |= dict(zip(found.put.ids, found.put.documents, strict=True))
        assert len(found.put) == len(set(now) - set(before)) + len(set(now) & set(before) & touched)
    assert state == {moved[number].id: moved[number].document for number in now}


def test_what_was_carried_is_counted_over_all_pieces_and_processes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert carried(folder) == {"added": 0, "changed": 0, "removed": 0}
    folder.note(CARRY, "pets", 0, counts={"added": 2, "changed": 1})
    folder.note(CARRY, "pets", 1, counts={"removed": 4, "changed": 1})
    assert carried(RunFolder(tmp_path)) == {"added": 2, "changed": 2, "removed": 4}
