"""The ledger: what is noted stays noted, whatever happens to the process or the disk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from chromactl.errors import ChromactlError
from chromactl.migrate.ledger import RunFolder
from chromactl.snapshot.shard import write_shard
from support.records import batch_of, plain


def made(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.make()
    return folder


def numbers(folder: RunFolder, step: str) -> set[tuple[str, int]]:
    return {(entry["collection"], entry["number"]) for entry in folder.entries(step)}


def test_it_gives_back_what_was_noted_of_each_step_and_piece(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    folder.note("import", "pets", 0, records=5)
    folder.note("import", "pets", 2, records=6)
    folder.note("import", "other", 1, records=7)
    folder.note("export", "pets", 1)
    for seen in (folder, RunFolder(tmp_path / "run")):
        assert numbers(seen, "import") == {("pets", 0), ("pets", 2), ("other", 1)}
        assert (seen.entry("import", "pets", 2) or {})["records"] == 6
        assert seen.entry("import", "pets", 1) is None
        assert seen.entry("verify", "pets", 0) is None


def test_a_later_note_of_a_piece_takes_the_place_of_an_earlier(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for records in (5, 6):
        folder.note("import", "pets", 0, records=records, rejects=[{"id": f"r{records}"}])
    for seen in (folder, RunFolder(tmp_path)):
        assert [entry["records"] for entry in seen.entries("import")] == [6]
        assert [reject["id"] for reject in seen.rejects()] == ["r6"]


def test_rejects_of_every_step_come_back_from_the_disk(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for step in ("export", "examine", "import"):
        folder.note(step, "pets", 0, rejects=[{"id": f"{step} 1"}, {"id": f"{step} 2"}])
    folder.note("verify", "pets", 0)
    assert [reject["id"] for reject in folder.rejects()] == [
        f"{step} {number}" for step in ("export", "examine", "import") for number in (1, 2)
    ]
    assert "rejects" not in (folder.entry("export", "pets", 0) or {})


@pytest.mark.parametrize(
    "tail", [b'{"step":"import","coll', b"\x00\x00\x00", b'{"step":"import"', b"{", b"\xc3", b"[]\n", b'{"a": 1}\n']
)
def test_a_torn_last_line_does_not_count_nor_spoil_the_next(tmp_path: Path, tail: bytes) -> None:
    made(tmp_path).note("import", "pets", 0, records=5)
    with (tmp_path / "ledger.jsonl").open("ab") as file:
        file.write(tail)
    folder = RunFolder(tmp_path)
    assert numbers(folder, "import") == {("pets", 0)}
    folder.note("import", "pets", 1, records=6)
    folder.note("import", "pets", 2, records=7)
    assert numbers(RunFolder(tmp_path), "import") == {("pets", 0), ("pets", 1), ("pets", 2)}


def test_an_empty_or_missing_folder_has_nothing_done(tmp_path: Path) -> None:
    for folder in (RunFolder(tmp_path), RunFolder(tmp_path / "nowhere")):
        assert folder.entries("import") == []
        assert list(folder.rejects()) == []
    assert not (tmp_path / "nowhere").exists()


def test_threads_can_note_at_the_same_time(tmp_path: Path) -> None:
    folder = made(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: folder.note("import", "pets", number, text="x" * 5000), range(200)))
    assert numbers(RunFolder(tmp_path), "import") == {("pets", number) for number in range(200)}


def test_what_is_forgotten_is_not_done_for_this_process_and_can_be_done_again(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for step in ("export", "import", "verify"):
        folder.note(step, "pets", 0)
    folder.forget("import", "verify")
    assert [len(folder.entries(step)) for step in ("export", "import", "verify")] == [1, 0, 0]
    folder.note("import", "pets", 0, records=9)
    assert [entry["records"] for entry in RunFolder(tmp_path).entries("import")] == [9]


def test_what_another_run_noted_can_be_adopted(tmp_path: Path) -> None:
    one, other = made(tmp_path / "one"), RunFolder(tmp_path / "other")
    one.note("examine", "pets", 0, rejects=[{"id": "r1"}])
    other.adopt(one.entries_with_rejects())
    for seen in (other, RunFolder(tmp_path / "other")):
        assert numbers(seen, "examine") == {("pets", 0)}
        assert [reject["id"] for reject in seen.rejects()] == ["r1"]


def test_a_shard_comes_back_as_it_was_noted(tmp_path: Path) -> None:
    folder = made(tmp_path)
    shard = write_shard(tmp_path, "pets/000000.parquet", batch_of(plain(3)))
    folder.note("export", "pets", 0, shard=asdict(shard))
    assert RunFolder(tmp_path).shard("pets", 0) == shard


def test_what_cannot_be_noted_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    folder = made(tmp_path)
    (tmp_path / "ledger.jsonl").mkdir()
    with pytest.raises(ChromactlError, match=r"ledger\.jsonl"):
        folder.note("import", "pets", 0)
    assert folder.entry("import", "pets", 0) is None


def test_a_removed_folder_is_gone(tmp_path: Path) -> None:
    folder = made(tmp_path / "run")
    folder.note("import", "pets", 0)
    folder.remove()
    assert not (tmp_path / "run").exists()
    assert folder.entry("import", "pets", 0) is None
    folder.make()
    folder.note("import", "pets", 1)
    assert numbers(folder, "import") == numbers(RunFolder(tmp_path / "run"), "import") == {("pets", 1)}
