"""The disk fills up, really: the run says which in one line, and goes on from there once there is room."""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import orjson
import pytest

from support.databases import Database, assert_holds, new_database
from support.ended import Ended
from support.process import last_line, running
from support.records import Made, Record, vectors
from support.servers import Server, chroma_server
from support.small_disk import SmallDisk, small_disk

SMALL, LARGE = 12, 200
RECORDS = 4500


@cache
def bulky() -> Made:
    """Records that take a few times as much as can be guessed before they were read, and do not compress.

    The bulk is not in documents, of which a server makes an index word by word.
    """
    chance = random.Random(2)  # noqa: S311 (a test has to be repeatable)
    return Made(
        "pets",
        "l2",
        [
            Record(
                f"r{number:05d}",
                vector,
                f"document {number}",
                None,
                {"bulk": b64encode(chance.randbytes(3000)).decode()},
            )
            for number, vector in enumerate(vectors(RECORDS, 8))
        ],
    )


@pytest.fixture(scope="module")
def source(modern: Server) -> Database:
    database = new_database(modern)
    database.put(bulky())
    return database


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", SMALL) as made:
        yield made


def migrate(disk: SmallDisk, folder: Path, source: Database, target: str, *more: object) -> Ended:
    """The command, as a process that sees the disk."""
    place = ["--source-url", source.url, "--target-url", target, "--database", source.name]
    if target.startswith("http"):
        place += ["--target-database", "default_database"]
    more = ("--max-retries", 1, "--timeout", 5, "--profile", "identity", "--json", "--batch-size", "250", *more)
    with running(folder, "migrate", *place, *more, before=disk.enter) as run:
        return run.end()


def check(database: Database) -> None:
    made = bulky()
    assert database.names() == ["pets"]
    assert_holds(database.records("pets"), made.records, "l2")


def is_full(ended: Ended, where: Path) -> None:
    assert (ended.code, ended.out) == (1, ""), ended.err
    assert str(where) in ended.complaint
    assert "disk is full" in ended.complaint
    assert "same command again" in ended.complaint


def notes(folder: Path) -> int:
    """The steps that the run has noted."""
    (ledger,) = folder.glob("run-*/ledger.jsonl")
    return len([line for line in ledger.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")])


@pytest.mark.parametrize("more", [(), ("--strict-phases",)])
def test_the_checkpoint_folders_disk_is_full(
    source: Database, receiving: Server, disk: SmallDisk, tmp_path: Path, more: tuple[str, ...]
) -> None:
    target = new_database(receiving)
    options = ["--target-database", target.name, "--checkpoint-dir", disk.path / "checkpoints", *more]
    is_full(migrate(disk, tmp_path, source, target.url, *options), disk.path)
    assert "pets" not in target.names()
    before = notes(disk.seen / "checkpoints")
    assert before > 0
    is_full(migrate(disk, tmp_path, source, target.url, *options), disk.path)
    disk.resize(LARGE)
    ended = migrate(disk, tmp_path, source, target.url, *options)
    assert ended.code == 0, ended.err
    assert sum(ended.json["reused"].values()) > 0
    check(target)


def test_a_disk_that_a_ballast_filled_from_the_first_byte(
    source: Database, receiving: Server, disk: SmallDisk, tmp_path: Path
) -> None:
    """Room for nothing at all is a precondition: nothing is begun, and with the ballast gone all is done."""
    target = new_database(receiving)
    disk.resize(LARGE)
    ballast = disk.seen / "ballast"
    ballast.write_bytes(bytes(disk.free))
    options = ["--target-database", target.name, "--checkpoint-dir", disk.path / "checkpoints"]
    ended = migrate(disk, tmp_path, source, target.url, *options)
    assert ended.code in (1, 3)
    assert str(disk.path) in ended.complaint
    assert target.names() == []
    ballast.unlink()
    ended = migrate(disk, tmp_path, source, target.url, *options)
    assert ended.code == 0, ended.err
    check(target)


@pytest.mark.parametrize("form", ["snapshot:{}/out", "{}/out.json"])
def test_the_disk_of_a_file_that_is_made_is_full(source: Database, disk: SmallDisk, tmp_path: Path, form: str) -> None:
    """Nothing half made is left there, and nothing that the source gave is read again."""
    target = form.format(disk.path)
    is_full(migrate(disk, tmp_path, source, target), disk.path)
    assert [path.name for path in disk.seen.iterdir()] == []
    disk.resize(LARGE)
    ended = migrate(disk, tmp_path, source, target)
    assert ended.code == 0, ended.err
    assert ended.json["reused"]["export"] > 0
    with chroma_server(tmp_path / "check") as server:
        place = ["--source-url", target, "--target-url", server.url, "--profile", "identity"]
        with running(tmp_path, "migrate", *place, before=disk.enter) as run:
            ended = run.end()
        assert ended.code == 0, ended.err
        check(Database(server))


@contextmanager
def server_on(disk: SmallDisk, port: int | None = None) -> Iterator[Server]:
    log = disk.path.parent / "server.log"
    with chroma_server(disk.path / "data", port, before=disk.enter, log=log) as server:
        yield server


def test_the_target_servers_disk_is_full(source: Database, disk: SmallDisk, tmp_path: Path) -> None:
    """The server answers 500 then, or hangs, and never says why; the complaint thinks of the disk either way.

    One that hangs may go on hanging when there is room again, until it is started anew.
    """
    with server_on(disk) as server:
        ended = migrate(disk, tmp_path, source, server.url)
        complaint = last_line(ended)
        assert server.url in complaint
        assert "its disk" in complaint
    disk.resize(LARGE)
    with server_on(disk, server.port):
        ended = migrate(disk, tmp_path, source, server.url)
        assert ended.code == 0, ended.err
        check(Database(server))


def test_the_disk_of_a_directory_that_is_written_is_full(source: Database, disk: SmallDisk, tmp_path: Path) -> None:
    options = ["--target-database", "default_database"]
    ended = migrate(disk, tmp_path, source, f"path:{disk.path}/data", *options)
    assert str(disk.path) in last_line(ended)
    disk.resize(LARGE)
    ended = migrate(disk, tmp_path, source, f"path:{disk.path}/data", *options)
    assert ended.code == 0, ended.err
    with server_on(disk) as server:
        check(Database(server))


@pytest.mark.parametrize("what", ["log", "backup"])
def test_the_disk_of_the_log_or_the_backup_is_full(
    source: Database, receiving: Server, disk: SmallDisk, tmp_path: Path, what: str
) -> None:
    """What is replaced is as it was, and is kept in the end."""
    target = new_database(receiving)
    live = bulky().only(bulky().records[:4400])
    target.put(live)
    folder = disk.seen / what
    options = ["--target-database", target.name, f"--{what}-dir", disk.path / what, "--replace"]
    if what == "log":
        folder.mkdir()
        (folder / "ballast").write_bytes(bytes(disk.free))
    ended = migrate(disk, tmp_path, source, target.url, *options)
    is_full(ended, disk.path)
    assert_holds(target.records("pets"), live.records, "l2")
    disk.resize(LARGE)
    ended = migrate(disk, tmp_path, source, target.url, *options)
    assert ended.code == 0, ended.err
    (kept,) = orjson.loads(ended.out)["kept"].values()
    assert_holds(target.records(kept), live.records, "l2")
    assert_holds(target.records("pets"), bulky().records, "l2")
