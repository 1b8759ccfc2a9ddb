"""Bad input: the exit code, one line that says what and what to do, and everything as it was."""

from __future__ import annotations

import fcntl
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.ended import Ended
from support.forwarder import answering
from support.ports import free_port
from support.process import run_unprivileged
from support.records import Made, Record, plain
from support.servers import Server, chroma_server
from support.trees import tree

Pair = tuple[Database, Database]


def migrate(chromactl: Chromactl, source: str, target: str, *more: object) -> Ended:
    return chromactl(
        "migrate", "--source-url", source, "--target-url", target, "--profile", "identity", "--json", *more
    )


def refused(ended: Ended, code: int, *said: object) -> None:
    assert ended.code == code, ended.err
    assert ended.out == ""
    for words in said:
        assert str(words) in ended.complaint


@pytest.fixture
def untouched(modern: Server, receiving: Server) -> Iterator[None]:
    """The shared source and target are as they were afterwards."""
    before = Database(modern).counts(), Database(receiving).names()
    yield
    assert (Database(modern).counts(), Database(receiving).names()) == before


# Servers


def test_a_refused_connection(chromactl: Chromactl, modern: Server, untouched: None) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    refused(migrate(chromactl, url, "path:out"), 3, url, "connection refused", "is the server running")
    assert not Path("out").exists()
    refused(migrate(chromactl, modern.url, url), 3, url, "connection refused", "is the server running")


def test_a_host_that_is_not_known(chromactl: Chromactl) -> None:
    refused(migrate(chromactl, "http://no-such-host.invalid:8000", "snapshot:out"), 3, "no-such-host.invalid")


def test_no_token_and_a_wrong_one(chromactl: Chromactl, legacy: Server, tmp_path: Path) -> None:
    before = Database(legacy).counts()
    hint = ("HTTP 403", "--source-token-file", "CHROMACTL_SOURCE_TOKEN")
    refused(migrate(chromactl, legacy.url, "snapshot:out"), 3, legacy.url, *hint)
    (tmp_path / "token").write_text("wr0ng-s3cret")
    ended = migrate(chromactl, legacy.url, "snapshot:out", "--source-token-file", "token")
    refused(ended, 3, legacy.url, *hint)
    logs = "".join(path.read_text() for path in tmp_path.glob("migration_logs/*"))
    assert "wr0ng-s3cret" not in ended.err + logs
    refused(migrate(chromactl, "path:none", legacy.url), 3, "--target-token-file", "CHROMACTL_TARGET_TOKEN")
    assert Database(legacy).counts() == before


def test_a_token_hint_names_the_commands_own_option(chromactl: Chromactl, legacy: Server, tmp_path: Path) -> None:
    (tmp_path / "queries.json").write_text('[{"text": "a"}]')
    ended = chromactl("smoke", "--db-url", legacy.url, "--test-queries", "queries.json", "--json")
    refused(ended, 3, "(--token-file)", "CHROMACTL_TOKEN")


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/html", b"<html><body>Welcome to nginx!</body></html>"),
        (404, "text/html", b"<html>404</html>"),
        (404, "application/json", b'{"detail": "Not Found"}'),
        (200, "application/json", b'{"status": "ok"}'),
        (200, "application/json", b'"ok"'),
        (200, "application/json", b""),
        (500, "text/plain", b"first line\nsecond line"),
        (301, "text/html", b"moved"),
    ],
)
def test_something_that_is_no_chroma(chromactl: Chromactl, status: int, kind: str, body: bytes) -> None:
    with answering(status, kind, body) as url:
        refused(migrate(chromactl, url, "snapshot:out"), 3, url, "not a ChromaDB", "check the address and port")
        refused(migrate(chromactl, "snapshot:none", url), 3, url, "not a ChromaDB")


def test_a_server_that_never_answers(chromactl: Chromactl) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        refused(migrate(chromactl, url, "snapshot:out", "--timeout", "0.2"), 3, url, "no answer in time")


@pytest.mark.parametrize("option", ["--database", "--tenant"])
def test_a_database_or_tenant_that_is_not_there(
    chromactl: Chromactl, modern: Server, legacy: Server, legacy_token: Path, option: str
) -> None:
    refused(migrate(chromactl, modern.url, "snapshot:out", option, "nowhere"), 3, modern.url, "nowhere", option)
    token = ("--source-token-file", legacy_token)
    refused(migrate(chromactl, legacy.url, "snapshot:out", option, "nowhere", *token), 3, "nowhere", option)


def test_a_collection_that_is_not_there(
    chromactl: Chromactl, modern: Server, receiving: Server, untouched: None
) -> None:
    ended = migrate(chromactl, modern.url, receiving.url, "--collection", "unicorns")
    refused(ended, 2, "--collection unicorns", modern.url, "nasty_cosine")


def test_a_source_without_any_collection_of_the_profile(chromactl: Chromactl, modern: Server, tmp_path: Path) -> None:
    ended = chromactl("migrate", "--source-url", modern.url, "--target-url", "snapshot:out", "--json")
    refused(ended, 3, "profile sergio", "plain-l2", "--profile")
    assert not list(tmp_path.glob("migration_checkpoints/run-*"))


# Folders and files


def folder(path: Path) -> None:
    path.mkdir()


def with_a_letter(path: Path) -> None:
    path.mkdir()
    (path / "letter.txt").write_text("dear diary")


def a_file(path: Path) -> None:
    path.write_text("dear diary")


def other_sqlite(path: Path) -> None:
    path.mkdir()
    connection = sqlite3.connect(path / "chroma.sqlite3")
    connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()


def no_sqlite(path: Path) -> None:
    path.mkdir()
    (path / "chroma.sqlite3").write_bytes(b"SQLite format 3\x00" + b"\x07" * 5000)


@pytest.mark.parametrize("make", [None, folder, with_a_letter, a_file, other_sqlite, no_sqlite])
def test_a_source_that_is_no_directory_of_chroma(
    chromactl: Chromactl, tmp_path: Path, make: Callable[[Path], None] | None
) -> None:
    path = tmp_path / "data"
    if make:
        make(path)
    before = tree(tmp_path)
    refused(migrate(chromactl, f"path:{path}", f"snapshot:{tmp_path}/out"), 3, path)
    assert {name: entry for name, entry in tree(tmp_path).items() if not name.startswith("migration_")} == before


@pytest.mark.parametrize("make", [with_a_letter, a_file, other_sqlite, no_sqlite])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_target_that_is_no_directory_of_chroma(
    chromactl: Chromactl, modern: Server, tmp_path: Path, make: Callable[[Path], None], dry: list[str], untouched: None
) -> None:
    path = tmp_path / "data"
    make(path)
    before = tree(path) if path.is_dir() else path.read_bytes()
    refused(migrate(chromactl, modern.url, f"path:{path}", *dry), 3, path)
    assert (tree(path) if path.is_dir() else path.read_bytes()) == before


@pytest.mark.parametrize("option", ["--checkpoint-dir", "--log-dir", "--backup-dir"])
def test_a_file_where_a_folder_is_expected(chromactl: Chromactl, modern: Server, tmp_path: Path, option: str) -> None:
    (tmp_path / "occupied").write_text("mine")
    refused(migrate(chromactl, modern.url, "snapshot:out", option, "occupied"), 3, tmp_path / "occupied")
    assert (tmp_path / "occupied").read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "what", ["--log-dir", "--checkpoint-dir", "--backup-dir", "path:", "snapshot:", "json", "token"]
)
def test_what_may_not_be_written_or_read(modern: Server, tmp_path: Path, what: str) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "token").write_text("t")
    (closed / "token").chmod(0o000)
    closed.chmod(0o755 if what == "token" else 0o555)
    target = {"path:": f"path:{closed}/new", "snapshot:": f"snapshot:{closed}/new", "json": f"{closed}/new.json"}
    arguments = ["--source-url", modern.url, "--target-url", target.get(what, f"snapshot:{tmp_path}/out")]
    if what.startswith("--"):
        arguments += [what, str(closed)]
    if what == "token":
        arguments += ["--source-token-file", str(closed / "token")]
    before = tree(closed)
    ended = run_unprivileged(tmp_path, "migrate", *arguments, "--profile", "identity", "--json")
    refused(ended, 3, closed)
    assert tree(closed) == before


def fill_disk(pattern: str, folder: Path) -> None:
    """Every file of this name in the next minutes lies on a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    for second in range(-2, 180):
        (folder / (now + timedelta(seconds=second)).strftime(pattern)).symlink_to("/dev/full")


def test_a_full_disk_under_the_checkpoints(chromactl: Chromactl, pair: Pair, tmp_path: Path) -> None:
    source, target = pair
    source.put(Made("pets", "l2", plain(20)))
    points = tmp_path / "migration_checkpoints"
    fill_disk(".checkpoint_%Y%m%d_%H%M%S.json.partial", points)
    ended = migrate(chromactl, source.url, target.url, "--database", source.name)
    refused(ended, 1, points, "the disk is full", "free space")
    assert target.names() == []
    for link in points.glob(".checkpoint_*"):
        link.unlink()
    assert migrate(chromactl, source.url, target.url, "--database", source.name).code == 0
    assert_holds(target.records("pets"), plain(20), "l2")


def test_a_full_disk_under_the_log(pair: Pair, tmp_path: Path) -> None:
    source, target = pair
    source.put(Made("pets", "l2", plain(20)))
    logs = tmp_path / "migration_logs"
    fill_disk("migration_%Y%m%d_%H%M%S.log", logs)
    place = ["--source-url", source.url, "--target-url", target.url, "--database", source.name]
    ended = run_unprivileged(tmp_path, "migrate", *place, "--profile", "identity", "--json")
    refused(ended, 1, logs, "the disk is full", "free space")
    assert target.names() == []


# Others at work


def test_a_directory_that_a_server_has_open(chromactl: Chromactl, modern: Server, tmp_path: Path) -> None:
    refused(migrate(chromactl, f"path:{modern.path}", "snapshot:out"), 5, modern.path, "server's URL")
    with chroma_server(tmp_path / "data") as server:
        before = Database(server).names()
        refused(migrate(chromactl, modern.url, f"path:{server.path}"), 5, server.path, "stop that process")
        assert Database(server).names() == before


def test_a_directory_of_an_older_chroma_is_not_upgraded_by_writing_to_it(
    chromactl: Chromactl, modern: Server, directories: dict[str, Path], tmp_path: Path
) -> None:
    path = shutil.copytree(directories["0.6.3"], tmp_path / "old")
    before = tree(path)
    refused(migrate(chromactl, modern.url, f"path:{path}"), 3, path, "older Chroma")
    assert tree(path) == before


def test_a_directory_that_the_service_has_locked(chromactl: Chromactl, modern: Server, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.copytree(modern.path, tmp_path / "data", dirs_exist_ok=True)
    with (tmp_path / "data" / ".chroma-stack.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(migrate(chromactl, modern.url, f"path:{tmp_path}/data"), 5, tmp_path / "data")


# Rejects


def corpus(count: int, bad: int) -> list[Record]:
    records = plain(count, 768)
    return [
        Record(one.id, one.embedding, one.document, None, {"line": -1 if number < bad else number, "lang": "english"})
        for number, one in enumerate(records)
    ]


@pytest.mark.parametrize(("bad", "rate", "passes"), [(3, "0.05", True), (5, "0.05", True), (6, "0.05", False),
                                                     (1, "0", False), (100, "1", True)])  # fmt: skip
def test_rejects(chromactl: Chromactl, pair: Pair, tmp_path: Path, bad: int, rate: str, passes: bool) -> None:
    source, target = pair
    source.put(Made("sergio_corpus", "l2", corpus(100, bad)))
    place = ["--source-url", source.url, "--target-url", target.url, "--database", source.name]
    ended = chromactl("migrate", *place, "--max-reject-rate", rate, "--json")
    (kept,) = tmp_path.glob("migration_logs/*.rejects.jsonl")
    lines = [orjson.loads(line) for line in kept.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == [f"r{number:05d}" for number in range(bad)]
    assert {(line["collection"], line["field"], line["reason"], line["value"]) for line in lines} == {
        ("sergio_corpus", "source_line", "invalid_source_line", "-1")
    }
    if passes:
        assert ended.code == 0, ended.err
        assert ended.json["rejects"] == {"total": bad, "by_reason": {"invalid_source_line": bad}, "unplaced": {}}
        assert ended.json["rejects_file"] == str(kept)
        assert target.counts() == {"sergio_corpus": 100 - bad}
    else:
        refused(ended, 4, f"{bad}.0%", "--max-reject-rate", kept)
        assert target.names() == []
