"""The index worker writes to servers from before 1.0 too: until the cutover such a one is the live index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.config import Settings
from app.core.chroma.stores import ChromaStores
from app.core.chroma.writer import Entries, IndexWriter
from support.databases import Database
from support.indexes import ANN, Place
from support.ports import free_port
from support.servers import Version, chroma_server

NAME = "mem.ann-first.0123456789abcdef0123456789abcdef"
VECTORS = np.random.default_rng(7).normal(size=(3, 8)).astype(np.float32)


@pytest.mark.parametrize("version", ["0.5.23", "0.6.3", "1.0.21"])
def test_records_are_put_replaced_found_and_removed(tmp_path: Path, version: Version) -> None:
    with chroma_server(tmp_path / "chroma", version=version) as server:
        stores = ChromaStores(
            Settings(chroma_mode="http", chroma_host="127.0.0.1", chroma_port=server.port, embedding_dimension=8)
        )
        writer = IndexWriter(stores.memory.session)
        ids = ["memory_log_1", "memory_log_2", "memory_log_3"]
        writer.put(NAME, Entries(ids, VECTORS, ["one", "two", "three"], [{"task": "a", "priority": 1}] * 3))
        writer.put(NAME, Entries(ids[:1], VECTORS[:1], ["another"], [{"task": "b"}]))
        writer.remove(NAME, [ids[2], "memory_log_4"])
        hits = stores.memory.query(NAME, VECTORS[0], 5)
        assert [(hit.id, hit.document, hit.metadata) for hit in hits] == [
            ("memory_log_1", "another", {"task": "b"}),
            ("memory_log_2", "two", {"task": "a", "priority": 1}),
        ]
        similarity = VECTORS[0] @ VECTORS[1] / np.linalg.norm(VECTORS[0]) / np.linalg.norm(VECTORS[1])
        assert [hit.metric for hit in hits] == ["cosine", "cosine"]
        assert [hit.score for hit in hits] == pytest.approx([1, similarity], abs=1e-5)
        stores.close()


def test_a_way_back_to_an_older_server_behind_the_same_address_is_noticed(tmp_path: Path) -> None:
    port = free_port()
    stores = ChromaStores(Settings(chroma_mode="http", chroma_host="127.0.0.1", chroma_port=port))
    writer = IndexWriter(stores.memory.session)
    entries = Entries(["memory_log_1"], VECTORS[:1], ["one"], [{"task": "a"}])
    versions: tuple[Version, ...] = ("1.5.9", "0.6.3", "1.5.9")
    for version in versions:
        with chroma_server(tmp_path / version, port=port, version=version):
            writer.put(NAME, entries)
            assert [hit.id for hit in stores.memory.query(NAME, VECTORS[0], 5)] == ["memory_log_1"]
    stores.close()


def test_a_rebuild_says_that_names_are_too_long_before_it_changes_anything(tmp_path: Path, ready_url: str) -> None:
    with chroma_server(tmp_path / "chroma", version="0.6.3") as server:
        place = Place(tmp_path, ready_url, Database(server))
        place.remember(ANN, range(3))
        place.without_events()
        place.chroma.request("POST", "/collections", {"name": "notes"})
        for more in ([], ["--dry-run"], ["--json"]):
            ended = place.app("rebuild", *more)
            assert (ended.returncode, ended.stdout) == (3, "")
            (line,) = ended.stderr.splitlines()
            assert "is version 0.6.3, which takes names of at most 63 characters" in line
            assert "playbooks/migrate.yml" in line
        assert place.chroma.names() == ["notes"]
        assert place.sql("SELECT count(*) FROM memory_logs WHERE embedding IS NOT NULL") == [(0,)]
        assert place.verify(code=4)["collections"][0]["missing"] == 3
