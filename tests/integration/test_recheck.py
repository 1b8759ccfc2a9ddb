"""What a finished migration notices when it is run again; of servers before 1.x, see test_recheck_old_servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from support.command import Chromactl
from support.databases import Database
from support.records import Made, Record, plain

Pair = tuple[Database, Database]
PLACE = ("--profile", "identity", "--json")


def migrate(chromactl: Chromactl, pair: Pair, *more: str) -> dict[str, Any]:
    source, target = pair
    ended = chromactl(
        "migrate", "--source-url", source.url, "--target-url", target.url, "--database", source.name, *PLACE, *more
    )
    assert ended.code == 0, ended.err
    return ended.json


def test_an_untouched_migration_is_found_so_in_one_pass(pair: Pair, chromactl: Chromactl) -> None:
    pair[0].put(Made("pets", "cosine", plain(120)))
    first = migrate(chromactl, pair)
    again = migrate(chromactl, pair)
    assert again["changed"] is False
    assert [phase["name"] for phase in again["phases"]] == ["recheck"]
    assert again["run"] == first["run"]


CHANGES: dict[str, Callable[[Record], Record]] = {
    "document": lambda record: replace(record, document="other words"),
    "metadata": lambda record: replace(record, metadata={"key": "other"}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_one_changed_text_is_noticed(pair: Pair, chromactl: Chromactl, change: Callable[[Record], Record]) -> None:
    records = plain(120)
    pair[0].put(Made("pets", "l2", records))
    migrate(chromactl, pair)
    pair[0].upsert("pets", change(records[77]))
    assert migrate(chromactl, pair)["changed"] is True
    assert migrate(chromactl, pair)["changed"] is False


def test_the_least_change_of_one_number_is_noticed(pair: Pair, chromactl: Chromactl) -> None:
    records = plain(120)
    pair[0].put(Made("pets", "l2", records))
    migrate(chromactl, pair)
    embedding = records[77].embedding.copy()
    embedding[3] = np.nextafter(embedding[3], np.float32(np.inf))
    pair[0].upsert("pets", replace(records[77], embedding=embedding))
    assert migrate(chromactl, pair)["changed"] is True


def test_one_database_under_two_names_is_refused(pair: Pair, chromactl: Chromactl) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(5)))
    other = source.url.replace("127.0.0.1", "localhost")
    ended = chromactl(
        "migrate", "--source-url", source.url, "--target-url", other, "--database", source.name, *PLACE, "--replace"
    )
    assert ended.code == 2
    assert "same database" in ended.complaint
    assert source.names() == ["pets"]
