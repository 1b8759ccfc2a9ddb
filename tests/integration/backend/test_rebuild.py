"""`app rebuild` on real servers: what comes out is what PostgreSQL holds, whatever was there and whoever writes."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from app.core.memory.tenant import Tenant
from support.databases import Database, new_database
from support.indexes import ANN, BOB, Place, raw_data, writing
from support.records import Record
from support.servers import Server
from support.service import bearer, index_worker, issue_key, service

RUN = "20261120T101500-0a1b2c"


@pytest.fixture
def place(tmp_path: Path, database_url: str, receiving: Server) -> Place:
    made = Place(tmp_path, database_url, new_database(receiving))
    assert made.app("database", "upgrade").returncode == 0
    return made


@pytest.fixture
def filled(place: Place) -> Place:
    """Three collections of two tenants, not indexed yet, and nothing that an index worker would do about it."""
    place.remember(ANN, range(300))
    place.remember(ANN, range(40), "passage")
    place.remember(BOB, range(50))
    place.without_events()
    return place


def test_the_index_is_made_from_nothing(filled: Place) -> None:
    assert filled.verify(code=4)["same"] is False
    said = filled.rebuild()
    assert (said["status"], said["changed"], said["records"], said["embedded"]) == ("rebuilt", True, 390, 390)
    filled.assert_indexed()
    assert filled.sql(
        "SELECT count(*) FROM memory_logs WHERE embedding_model <> 'hashing-32' OR embedding IS NULL"
    ) == [(0,)]
    assert filled.verify()["same"] is True
    again = filled.rebuild()
    assert (again["records"], again["embedded"]) == (390, 0)
    filled.assert_indexed()


def test_what_was_changed_in_the_index_is_put_right(filled: Place) -> None:
    filled.rebuild()
    memories, passages = ANN.collection("memory"), ANN.collection("passage")
    there = filled.chroma.records(memories)
    ids = sorted(there)
    filled.chroma.delete(memories, *ids[:3])
    changed = [
        Record(ids[3], np.ones(32, np.float32), there[ids[3]].document, None, there[ids[3]].metadata),
        Record(ids[4], there[ids[4]].embedding, "another document", None, there[ids[4]].metadata),
        Record(ids[5], there[ids[5]].embedding, there[ids[5]].document, None, {"weight": 1}),
        Record("memory_log_987654321", np.ones(32, np.float32), "of nobody", None, {"a": 1}),
        Record("something else", np.ones(32, np.float32), "of nobody", None, {"a": 1}),
    ]
    filled.chroma.upsert(memories, *changed)
    filled.chroma.drop(passages)
    filled.chroma.delete(BOB.collection("memory"), *filled.chroma.records(BOB.collection("memory")))
    said = filled.verify(code=4)
    found = {one["name"]: one for one in said["collections"]}
    counts = {key: found[memories][key] for key in ("missing", "extra", "different", "waiting")}
    assert counts == {"missing": 3, "extra": 2, "different": 3, "waiting": 0}
    assert set(found[memories]["examples"]["missing"]) == set(ids[:3])
    assert set(found[memories]["examples"]["extra"]) == {"memory_log_987654321", "something else"}
    assert found[memories]["examples"]["different"] == {
        ids[3]: "embedding",
        ids[4]: "document",
        ids[5]: "metadata weight",
    }
    assert found[passages]["missing"] == 40
    assert found[BOB.collection("memory")]["missing"] == 50
    filled.rebuild()
    filled.assert_indexed()
    assert filled.verify()["same"] is True


def test_a_dry_run_changes_nothing_and_says_what_would_be(filled: Place) -> None:
    before = filled.chroma.names()
    said = filled.rebuild("--dry-run")
    assert (said["status"], said["changed"], said["records"], said["same"]) == ("dry-run", True, 390, False)
    assert filled.chroma.names() == before == []
    assert "would rebuild 3 collections of 390 records" in filled.app("rebuild", "--dry-run").stdout


def test_only_what_is_named_is_rebuilt(filled: Place) -> None:
    said = filled.rebuild("--user", "ann", "--project", "first", "--kind", "passage")
    assert [(one["user"], one["kind"]) for one in said["collections"]] == [("ann", "passage")]
    assert filled.chroma.names() == [ANN.collection("passage")]
    assert filled.verify("--user", "ann", "--kind", "passage")["records"] == 40
    ended = filled.app("rebuild", "--user", "nobody")
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "PostgreSQL knows no tenant nobody/*" in ended.stderr


def test_writes_go_on_and_are_in_the_new_index(filled: Place) -> None:
    """Added, changed and deleted meanwhile, indexed by two workers; afterwards the two are the same."""
    with (
        index_worker(filled.folder, filled.variables) as one,
        index_worker(filled.folder, filled.variables) as other,
        writing(filled, {ANN: "memory", BOB: "memory"}),
    ):
        caught_up = 0
        for _ in range(4):
            said = filled.rebuild()
            assert said["status"] == "rebuilt"
            caught_up += said["caught_up"]
        assert caught_up > 0
        assert one.running
        assert other.running
        assert filled.verify()["same"] is True  # also in the middle of it
    with index_worker(filled.folder, filled.variables):
        filled.wait_for_workers()
    filled.assert_indexed()
    assert filled.sql("SELECT count(*) FROM dead_letters") == [(0,)]


def test_searches_never_fail_nor_lack_a_record(filled: Place) -> None:
    """Thirty records are few enough for an exact answer of Chroma's index. Every search has to bring them all."""
    carol = Tenant("carol", "third")
    filled.remember(carol, range(30))
    filled.remember(carol, range(30), "passage")
    filled.rebuild()
    key = issue_key(filled.folder, filled.variables, carol.user_id, carol.project_id)
    over = threading.Event()
    with service(filled.folder, filled.variables) as api, ThreadPoolExecutor(4) as pool:

        def search(path: str) -> int:
            number = 0
            while not over.is_set():
                body = {"query": f"memory {number} of rain", "limit": 30}
                answer = api.http.post(path, json=body, headers=bearer(key))
                assert answer.status_code == 200, answer.text
                assert len({result.get("memory_id") or result["id"] for result in answer.json()["results"]}) == 30
                number += 1
            return number

        searches = [pool.submit(search, path) for path in ("/memories/search", "/rag/query") for _ in range(2)]
        try:
            for _ in range(4):
                filled.rebuild()
        finally:
            over.set()
        assert min(done.result() for done in searches) > 20


OTHERS = "UPDATE memory_logs SET embedding = (SELECT array_agg(0.5::real) FROM generate_series(1, 32))::vector"


def embeddings(place: Place) -> dict[tuple[str, str], bytes]:
    """Those that PostgreSQL keeps, by collection and record."""
    return {
        (name, record.id): record.embedding.tobytes() for name, records in place.wanted().items() for record in records
    }


def test_embeddings_of_another_model_are_made_anew_and_kept(filled: Place) -> None:
    filled.rebuild()
    right = embeddings(filled)
    filled.sql(f"{OTHERS}, embedding_model = 'another' WHERE mod(id, 3) = 0")
    assert embeddings(filled) != right
    assert filled.verify(code=4)["same"] is False
    assert filled.rebuild()["embedded"] == 130
    filled.assert_indexed()
    assert embeddings(filled) == right
    assert filled.sql("SELECT DISTINCT embedding_model FROM memory_logs") == [("hashing-32",)]


def test_with_re_embed_no_stored_embedding_is_used(filled: Place) -> None:
    filled.rebuild()
    right = embeddings(filled)
    filled.sql(OTHERS)
    assert filled.rebuild()["embedded"] == 0  # of the configured model, as it says, so it is used
    filled.assert_indexed()
    assert filled.rebuild("--re-embed")["embedded"] == 390
    filled.assert_indexed()
    assert embeddings(filled) == right


def test_a_new_dimension_is_set_and_everything_embedded_anew(filled: Place) -> None:
    filled.rebuild()
    ended = filled.app("rebuild", EMBEDDING_DIMENSION="48")
    assert ended.returncode == 3
    assert "app database set-dimension 48" in ended.stderr
    filled.dimension = 48
    ended = filled.app("database", "set-dimension", "48")
    assert ended.returncode == 2  # embeddings go, so it has to be said that this is meant
    assert filled.app("database", "set-dimension", "48", "--yes").stdout == "embeddings have dimension 48\n"
    assert filled.app("database", "set-dimension", "48", "--yes").stdout == "nothing to do\n"
    said = filled.rebuild()
    assert said["embedded"] == 390
    filled.assert_indexed()
    assert {len(record.embedding) for records in filled.wanted().values() for record in records} == {48}


def test_a_tenant_without_records_has_an_empty_collection(filled: Place) -> None:
    filled.rebuild()
    filled.sql("DELETE FROM memory_logs WHERE user_id = 'bob'")
    filled.without_events()  # as if the index workers had lost them
    said = filled.verify(code=4)
    assert [one["extra"] for one in said["collections"] if one["user"] == "bob"] == [50]
    assert {one["name"] for one in filled.rebuild()["collections"]} >= {BOB.collection("memory")}
    filled.assert_indexed()
    assert [one["user"] for one in filled.rebuild()["collections"]] == ["ann", "ann"]  # it is as it should be


def test_collections_of_unknown_tenants_and_other_programs_are_left_alone(filled: Place) -> None:
    stranger = Tenant("dave", "fourth").collection("memory")
    others = [stranger, "notes", f"notes--m{RUN}", f"{ANN.collection('memory')}--m{RUN}"]
    for name in others:
        filled.chroma.request("POST", "/collections", {"name": name})
    said = filled.rebuild()
    assert said["unknown"] == [stranger]
    assert said["left_alone"] == [f"{ANN.collection('memory')}--m{RUN}"]
    assert set(others) <= set(filled.chroma.names())


def test_settings_of_an_index_and_its_metadata_are_kept_but_for_its_metric(filled: Place) -> None:
    name = BOB.collection("memory")
    hnsw = {"space": "l2", "ef_search": 57, "max_neighbors": 21}
    body = {"name": name, "configuration": {"hnsw": hnsw}, "metadata": {"owner": "ops", "hnsw:space": "l2"}}
    filled.chroma.request("POST", "/collections", body)
    found = {one["name"]: one["metric"] for one in filled.verify("--user", "bob", code=4)["collections"]}
    assert found == {name: "l2"}
    assert "its metric is l2, and should be cosine" in filled.app("verify", "--user", "bob").stdout
    filled.rebuild()
    made = filled.chroma.description(name)
    kept = made["configuration_json"]["hnsw"]
    assert {key: kept[key] for key in hnsw} == {**hnsw, "space": "cosine"}
    assert filled.chroma.metric(name) == "cosine"
    assert made["metadata"]["owner"] == "ops"


def poison(place: Place) -> int:
    """A record that Chroma refuses: psql wrote it, past the service's checks."""
    bad = {"content": "bad", "metadata": {"nested": {"a": 1}}}
    rows = place.sql(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES ('ann', 'first', %s) RETURNING id", Jsonb(bad)
    )
    return int(rows[0][0])


def test_a_record_that_chroma_refuses_holds_up_nobody_and_is_told(filled: Place) -> None:
    bad = poison(filled)
    no_content = filled.sql(
        "INSERT INTO memory_logs (user_id, project_id, raw_data) VALUES ('ann', 'first', '{}') RETURNING id"
    )[0][0]
    filled.without_events()
    said = filled.rebuild(code=4)
    assert said["status"] == "incomplete"
    troubled = {id_: why for one in said["collections"] for id_, why in one["troubled"].items()}
    assert set(troubled) == {f"memory_log_{bad}", f"memory_log_{no_content}"}
    assert "refused the records" in troubled[f"memory_log_{bad}"]
    assert said["records"] == 390
    waiting = {row[0] for row in filled.sql("SELECT memory_id FROM outbox WHERE operation = 'replay'")}
    assert waiting == {bad, no_content}  # so that dead letters tell of them in the end
    ended = filled.app("rebuild")
    assert ended.returncode == 4
    assert f"memory_log_{bad}: " in ended.stdout
    assert len(filled.sql("SELECT id FROM outbox")) == 2  # they are known already
    filled.sql("DELETE FROM memory_logs WHERE id IN (%s, %s)", bad, no_content)
    filled.without_events()
    filled.assert_indexed()


def test_no_collection_is_replaced_by_a_worse_one(filled: Place) -> None:
    """It holds a record that could not be indexed any more: it stays as it is, and the others are rebuilt."""
    name = ANN.collection("memory")
    filled.rebuild()
    before = {one: filled.chroma.description(one)["id"] for one in filled.chroma.names()}
    bad = filled.sql("SELECT id FROM memory_logs WHERE user_id = 'ann' AND kind = 'memory' LIMIT 1")[0][0]
    bare = {"metadata": {"a": 1}}  # no content, so there is nothing to embed
    filled.sql("UPDATE memory_logs SET raw_data = %s WHERE id = %s", Jsonb(bare), bad)
    filled.without_events()
    was = filled.chroma.records(name)[f"memory_log_{bad}"]
    metadata = {**dict.fromkeys(was.metadata or {}), "a": 1, "created_at": (was.metadata or {})["created_at"]}
    filled.chroma.upsert(name, replace(was, document=json.dumps(bare, separators=(",", ":")), metadata=metadata))
    said = filled.rebuild(code=4)
    (failed,) = (one for one in said["collections"] if one["error"])
    assert failed["name"] == name
    assert "that the live collection holds" in failed["error"]
    after = {one: filled.chroma.description(one)["id"] for one in filled.chroma.names()}
    assert after.keys() == before.keys()
    assert {one for one in before if after[one] == before[one]} == {name}


@pytest.mark.parametrize(("model", "option"), [("another", []), ("hashing-32", ["--re-embed"])])
def test_a_record_that_somebody_keeps_locked_is_not_left_out_without_a_word(
    filled: Place, model: str, option: list[str]
) -> None:
    """Nobody waits for its lock to store its new embedding, and so the collection stays as it is."""
    filled.rebuild()
    name = ANN.collection("memory")
    before = filled.chroma.description(name)["id"]
    filled.sql("UPDATE memory_logs SET embedding_model = %s WHERE user_id = 'ann' AND kind = 'memory'", model)
    with psycopg.connect(filled.url) as session:
        locked = session.execute("SELECT max(id) FROM memory_logs WHERE user_id = 'ann' AND kind = 'memory'").fetchone()
        assert locked is not None
        session.execute("SELECT FROM memory_logs WHERE id = %s FOR UPDATE", locked)
        said = filled.rebuild("--user", "ann", "--kind", "memory", *option, code=4)
        assert f"locked, so that 1 records cannot be given their embeddings, as memory_log_{locked[0]}" in str(said)
        assert filled.chroma.description(name)["id"] == before
    assert filled.rebuild(*option)["embedded"] == (390 if option else 1)
    filled.assert_indexed()


def test_two_rebuilds_at_once_are_one(filled: Place) -> None:
    with psycopg.connect(filled.url, autocommit=True) as connection:
        held = connection.execute("SELECT pg_try_advisory_lock(%s)", [0x636873747262]).fetchall()
        assert held == [(True,)]
        ended = filled.app("rebuild")
    assert ended.returncode == 5
    assert "Another rebuild is running" in ended.stderr
    assert "cut off" not in ended.stderr
    assert filled.chroma.names() == []
    filled.rebuild()


def test_in_persistent_mode_it_works_on_the_directories_of_a_service_that_is_stopped(
    tmp_path: Path, database_url: str, receiving: Server
) -> None:
    more = {"CHROMA_MODE": "persistent", "CHROMA_DATABASE": "default_database"}
    place = Place(tmp_path, database_url, Database(receiving, "none"), more=more)
    assert place.app("database", "upgrade").returncode == 0
    key = issue_key(tmp_path, place.variables, ANN.user_id, ANN.project_id)

    def search(api: Any) -> list[int]:
        answer = api.http.post("/memories/search", json={"query": "rain", "limit": 30}, headers=bearer(key))
        assert answer.status_code == 200, answer.text
        return sorted(result["memory_id"] for result in answer.json()["results"])

    with service(tmp_path, place.variables) as api:
        place.remember(ANN, range(30))
        place.remember(ANN, range(20), "passage")
        place.wait_for_workers()
        there = search(api)
        assert len(there) == 30
        for command in ("rebuild", "verify"):
            ended = place.app(command)
            assert ended.returncode == 5
            assert "is in use by process" in ended.stderr
    place.sql("UPDATE memory_logs SET raw_data = %s WHERE id = %s", Jsonb(raw_data(77)), there[0])
    place.without_events()
    assert sum(one["different"] for one in place.verify(code=4)["collections"]) == 1
    said = place.rebuild()
    assert (said["records"], said["embedded"]) == (50, 1)
    assert place.verify()["same"] is True
    assert place.rebuild()["records"] == 50
    with service(tmp_path, place.variables) as api:
        assert search(api) == there
