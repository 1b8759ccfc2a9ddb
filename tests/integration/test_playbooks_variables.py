"""What role variables of a migration lead to, with real servers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from support.databases import Database, assert_holds
from support.embedding_server import MODEL, embedding_server
from support.plays import Operator
from support.records import Made, plain

NAME = "sergio_humor"
HUMOR = Made(NAME, "cosine", [replace(one, metadata={"humor": "dry"}) for one in plain(60, 16)])
FORMER = Made(NAME, "l2", plain(90, 8, seed=5, prefix="former"))


@pytest.fixture
def operator(pair: tuple[Database, Database], tmp_path: Path) -> Operator:
    return Operator(pair, tmp_path)


def test_a_check_ends_where_the_migration_would(operator: Operator) -> None:
    bad = [replace(one, metadata={"humor": "dry", "line": -1}) for one in HUMOR.records]
    operator.source.put(Made(NAME, "cosine", bad))
    looked = operator.play("migrate", "--check")
    assert looked.code == 2
    assert "60 records cannot be migrated (invalid_source_line: 60)" in looked.out
    done = operator.play("migrate")
    assert done.code == 2
    assert "100.0% of the records cannot be migrated" in done.out
    accepted = operator.play("migrate", "--check", "-e", "migration_max_reject_rate=1")
    assert (accepted.code, operator.target.names()) == (0, [])


def test_what_is_in_the_way_is_replaced_if_that_is_wanted_and_a_backup_brings_it_back(operator: Operator) -> None:
    operator.source.put(HUMOR)
    operator.target.put(FORMER)
    refused = operator.play("migrate")
    assert refused.code == 2
    assert f"already holds a collection {NAME} with other content" in refused.out
    assert "migration_replace" in refused.out
    replaced = operator.play("migrate", "-e", "migration_replace=true")
    assert replaced.code == 0, replaced.out
    run = operator.on_record(".json")["run"]
    backup = operator.prefix / f"var/backups/chroma-stack/migration/before-{run}"
    operator.target.drop(f"{NAME}--before-{run}")
    past = operator.play("rollback")
    assert past.code == 2
    assert f"--backup-path {backup}" in past.out
    back = ("rollback", "-e", f"migration_rollback_backup={backup}")
    undone = operator.play(*back)
    assert undone.code == 0, undone.out
    assert f"new is as {backup} has it" in undone.out
    assert operator.target.counts() == {NAME: 90}
    assert_holds(operator.target.records(NAME), FORMER.records, "l2")
    assert operator.keeps_the_promise("test_migration.py::test_target_holds_what_the_rollback_left")
    again = operator.play(*back)
    assert (again.code, again.changed) == (0, 0), again.out


def test_the_texts_of_queries_are_embedded_by_the_model_that_is_named(operator: Operator, tmp_path: Path) -> None:
    operator.source.put(HUMOR)
    (tmp_path / "key").write_text("k3y-of-the-tests\n")
    half = operator.play("migrate", "-e", "migration_embedding_provider=openai")
    assert half.code == 2
    assert "set migration_embedding_url and migration_embedding_model too" in half.out
    with embedding_server(16, "k3y-of-the-tests") as model:
        variables = {
            "migration_embedding_provider": "openai",
            "migration_embedding_url": model.url,
            "migration_embedding_model": MODEL,
            "migration_embedding_key_file": str(tmp_path / "key"),
        }
        passed = operator.play("migrate", "-vvv", "-e", orjson.dumps(variables).decode())
        assert passed.code == 0, passed.out
        assert model.texts == ["a joke"]
    assert "k3y-of-the-tests" not in passed.out
