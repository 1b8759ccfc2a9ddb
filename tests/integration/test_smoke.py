"""The operators' own queries against a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chromactl.embedding import hashing_embeddings
from support.command import Chromactl
from support.databases import Database
from support.ended import Ended
from support.records import Made, Record

Pair = tuple[Database, Database]


def filled(database: Database) -> None:
    texts = ["boundaries and trust", "a joke about timing", "systems thinking"]
    vectors = hashing_embeddings(texts, 64)
    records = [
        Record(text, vector, text, None, {"n": n}) for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    database.put(Made("pets", "cosine", records), Made("empty", "cosine", []))


def smoke(chromactl: Chromactl, database: Database, *queries: dict[str, Any]) -> Ended:
    Path("queries.json").write_text(json.dumps(queries))
    place = ["--db-url", database.url, "--database", database.name, "--test-queries", "queries.json"]
    return chromactl("smoke", *place, "--limit-ms", 60_000, "--json")


def test_answers_pass(pair: Pair, chromactl: Chromactl) -> None:
    filled(pair[0])
    queries = ({"text": "trust", "collection": "pets"}, {"text": "joke", "collection": "pets", "where": {"n": 1}})
    ended = smoke(chromactl, pair[0], *queries)
    assert ended.code == 0, ended.err
    assert (ended.json["passed"], ended.json["changed"], ended.json["failures"]) == (True, False, [])
    assert [query["results"] for query in ended.json["queries"]] == [3, 1]


def test_an_empty_answer_fails(pair: Pair, chromactl: Chromactl) -> None:
    filled(pair[0])
    ended = smoke(chromactl, pair[0], {"text": "trust", "collection": "empty"})
    assert (ended.code, ended.json["passed"]) == (1, False)
    assert "no result for 'trust' in empty" in ended.complaint
    ended = smoke(chromactl, pair[0], {"text": "trust", "collection": "pets", "where": {"n": 99}})
    assert ended.code == 1


def test_a_collection_that_is_not_there(pair: Pair, chromactl: Chromactl) -> None:
    filled(pair[0])
    ended = smoke(chromactl, pair[0], {"text": "trust", "collection": "unicorns"})
    assert (ended.code, ended.out) == (3, "")
    assert "unicorns" in ended.complaint
    assert "pets" in ended.complaint


def test_an_empty_database(pair: Pair, chromactl: Chromactl) -> None:
    ended = smoke(chromactl, pair[0], {"text": "trust"})
    assert (ended.code, ended.out) == (3, "")
    assert "it holds nothing" in ended.complaint
