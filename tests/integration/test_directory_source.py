"""Directories that servers left: damaged ones, servers that break down on them, copies that are left behind."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from chromactl.errors import ChromactlError
from chromactl.options import access
from chromactl.stores.base import Source
from chromactl.stores.opening import open_source
from support.command import Chromactl
from support.servers import Version
from support.trees import tree

READER = """
import sys
from chromactl.options import access
from chromactl.stores.opening import open_source
store = open_source(access(sys.argv[1], "source", None, "default_tenant", "default_database"))
print("open", flush=True)
sys.stdin.read()
"""

KILLED_WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")  # so that it reaches the file before its end
connection.execute("BEGIN")
connection.execute("UPDATE collections SET name = 'torn-' || name")
connection.execute("UPDATE embedding_metadata SET string_value = 'torn'")
connection.execute("CREATE TABLE torn AS SELECT randomblob(1000000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


def opened(path: Path) -> Source:
    return open_source(access(f"path:{path}", "source", None, "default_tenant", "default_database"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where copies are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.fixture
def damaged(directories: Mapping[Version, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(directories["0.4.24"], tmp_path / "damaged"))


def own_server(store: Source) -> int:
    """The process id of the server that the store started."""
    (child,) = (
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if str(os.getpid()) in _parent(entry) and _reads(entry, store)
    )
    return child


def _parent(process: Path) -> list[str]:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[1:2]
    except OSError:
        return []


def _reads(process: Path, store: Source) -> bool:
    return b"chromactl-copy-" in (process / "cmdline").read_bytes()


def test_a_directory_that_no_restart_cures_is_one_line(damaged: Path, temporary: Path, chromactl: Chromactl) -> None:
    with closing(sqlite3.connect(damaged / "chroma.sqlite3")) as connection, connection:
        connection.execute("ALTER TABLE collection_metadata RENAME COLUMN int_value TO another")
    before = tree(damaged)
    ended = chromactl("migrate", "--source-url", f"path:{damaged}", "--target-url", "path:out", "--json")
    assert ended.code == 1
    assert f"{damaged}: Chroma comes up on this directory, but cannot read it" in ended.complaint
    assert 'ColumnNotFound("int_value")' in ended.complaint
    assert not Path("out").exists()
    assert list(temporary.iterdir()) == []
    assert tree(damaged) == before


def test_a_server_that_breaks_down_while_it_is_read_is_one_line(
    directories: Mapping[Version, Path], temporary: Path
) -> None:
    path = directories["0.4.24"]
    with closing(opened(path)) as source:
        collection = source.collections()[-1]
        os.kill(own_server(source), signal.SIGSEGV)
        with pytest.raises(ChromactlError, match=r"Chroma broke down on this directory \(SIGSEGV\)") as caught:
            source.read(collection, ["r00001"])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_damaged_index_is_one_line_that_names_the_directory(damaged: Path) -> None:
    with closing(sqlite3.connect(damaged / "chroma.sqlite3")) as connection:
        rows = connection.execute("SELECT id FROM segments WHERE type LIKE '%hnsw%'").fetchall()
    for (segment,) in rows:
        (damaged / segment).mkdir(exist_ok=True)
        (damaged / segment / "index_metadata.pickle").write_bytes(b"garbage")
    with closing(opened(damaged)) as source:
        collection = source.collections()[-1]
        with pytest.raises(ChromactlError) as caught:
            source.count(collection)
    assert str(caught.value).startswith(f"path:{damaged}: HTTP 500")
    assert "\n" not in str(caught.value)


def test_sequence_numbers_as_bytes_are_read(damaged: Path) -> None:
    """As 0.4 wrote them; 1.x before 1.0.4 failed on such directories (chroma issue 4217)."""
    with closing(sqlite3.connect(damaged / "chroma.sqlite3")) as connection:
        assert connection.execute("SELECT DISTINCT typeof(seq_id) FROM embeddings").fetchall() == [("blob",)]
    with closing(opened(damaged)) as source:
        for collection in source.collections():
            batch, unreadable = source.read(collection, source.ids(collection))
            assert (len(batch), unreadable) == (source.count(collection), [])


@pytest.fixture
def torn(directories: Mapping[Version, Path], tmp_path: Path) -> Path:
    """A directory whose server was killed in the middle of a transaction."""
    folder = Path(shutil.copytree(directories["1.5.9"], tmp_path / "torn"))
    database = folder / "chroma.sqlite3"
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, database], check=False)  # noqa: S603 (ours)
    assert killed.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):  # it would have to be rolled back first
            connection.execute("SELECT * FROM collections")
    return folder


def in_json(path: Path, chromactl: Chromactl, tmp_path: Path) -> dict[str, Any]:
    """Everything that the directory holds, collection by collection."""
    file = tmp_path / f"{path.name}.json"
    ended = chromactl("migrate", "--source-url", f"path:{path}", "--target-url", file, "--profile", "identity")
    assert ended.code == 0, ended.err
    return {collection["name"]: collection for collection in orjson.loads(file.read_bytes())["collections"]}


def test_what_a_killed_server_had_not_finished_is_not_read(
    torn: Path, directories: Mapping[Version, Path], chromactl: Chromactl, tmp_path: Path
) -> None:
    before = tree(torn)
    assert in_json(torn, chromactl, tmp_path) == in_json(directories["1.5.9"], chromactl, tmp_path)
    assert tree(torn) == before


def test_what_a_killed_server_had_not_finished_is_undone_where_data_is_brought(
    torn: Path, directories: Mapping[Version, Path], chromactl: Chromactl, tmp_path: Path
) -> None:
    wanted = in_json(directories["1.5.9"], chromactl, tmp_path)
    place = ["--source-url", tmp_path / "1.5.9.json", "--target-url", f"path:{torn}", "--profile", "identity"]
    ended = chromactl("migrate", *place, "--collection", "plain-l2", "--rename", "plain-l2=more")
    assert ended.code == 0, ended.err
    assert in_json(torn, chromactl, tmp_path) == {**wanted, "more": {**wanted["plain-l2"], "name": "more"}}


@pytest.fixture
def killed_reader(directories: Mapping[Version, Path], temporary: Path) -> None:
    """A process that read a directory and was killed."""
    with subprocess.Popen(  # noqa: S603 (our own interpreter)
        [sys.executable, "-c", READER, f"path:{directories['1.5.9']}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "open\n"
        reader.kill()


def test_a_copy_that_a_killed_run_left_is_removed_by_the_next(
    killed_reader: None, directories: Mapping[Version, Path], temporary: Path
) -> None:
    (left,) = temporary.iterdir()
    foreign = temporary / "chromactl-copy-of-somebody"
    foreign.mkdir()
    with closing(opened(directories["1.5.9"])):
        assert not left.exists()
        (mine,) = set(temporary.iterdir()) - {foreign}
        with closing(opened(directories["1.5.9"])):
            assert mine.exists()  # its owner lives
    assert list(temporary.iterdir()) == [foreign]
