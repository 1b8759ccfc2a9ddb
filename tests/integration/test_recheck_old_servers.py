"""A finished migration from a server before 1.x, run again: changed embeddings are found without reading them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chromactl.migrate.probes import LENGTHS_EVERY
from support.command import Chromactl
from support.databases import Database, assert_holds, new_database, same_database
from support.forwarder import forwarder
from support.migrations import Watched, watched
from support.records import Made, Record, plain
from support.servers import Server, Version

OLD: list[Version] = ["0.4.24", "0.5.23", "0.6.3"]
SPACES = ["l2", "cosine", "ip"]
DIMENSION = 384

Change = Callable[[list[Record]], list[Record]]


def unit(count: int, dimension: int = DIMENSION) -> list[Record]:
    """Records with embeddings of length 1, as models give them."""
    found = plain(count, dimension)
    return [replace(one, embedding=one.embedding / np.linalg.norm(one.embedding)) for one in found]


@pytest.fixture
def source(
    version: Version, servers: Mapping[Version, Server], _own_folder: None, monkeypatch: pytest.MonkeyPatch
) -> Database:
    """An empty database of the old server; its token is in the environment."""
    server = servers[version]
    assert server.token
    monkeypatch.setenv("CHROMACTL_SOURCE_TOKEN", server.token)
    return new_database(server)


@pytest.fixture
def place(source: Database, receiving: Server, chromactl: Chromactl) -> Iterator[Watched]:
    with watched(source, same_database(receiving, source.name), chromactl) as made:
        yield made


def embeddings_read(place: Watched) -> int:
    """How many embeddings the source was asked for since the last command began."""
    asked = [body for to, path, body in place.watch.seen if to == "source" and path.endswith("/get")]
    return sum(
        len(body["ids"]) if "ids" in body else body["limit"] for body in asked if "embeddings" in body["include"]
    )


def with_one_float_changed(records: list[Record]) -> list[Record]:
    embedding = records[77].embedding.copy()
    embedding[5] += 1e-4
    return [replace(records[77], embedding=embedding)]


def with_two_swapped(records: list[Record]) -> list[Record]:
    one, other = records[30], records[200]
    return [replace(one, embedding=other.embedding), replace(other, embedding=one.embedding)]


def with_one_made_anew(records: list[Record]) -> list[Record]:
    return [replace(records[222], embedding=records[222].embedding[::-1].copy())]


CHANGES: dict[str, Change] = {
    "one float by 1e-4": with_one_float_changed,
    "two swapped": with_two_swapped,
    "one made anew": with_one_made_anew,
}

every_version = pytest.mark.parametrize("version", OLD)
in_0_6_3 = pytest.mark.parametrize("version", ["0.6.3"])


@every_version
def test_an_untouched_source_is_found_so_without_reading_embeddings(place: Watched) -> None:
    records = unit(600)
    place.source.put(*(Made(f"pets-{space}", space, records) for space in SPACES))
    place.report()
    assert embeddings_read(place) >= 3 * len(records)
    again = place.report()
    assert (again["changed"], [phase["name"] for phase in again["phases"]]) == (False, ["recheck"])
    lengths = -(-len(records) // LENGTHS_EVERY)  # of the cosine collection
    beyond_reach = 3 * len(records) // 100
    assert lengths <= embeddings_read(place) <= lengths + beyond_reach


@every_version
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_embeddings_changed_alone_are_carried_over(place: Watched, change: Change) -> None:
    records = unit(300)
    names = {space: f"pets-{space}" for space in SPACES}
    place.source.put(*(Made(name, space, records) for space, name in names.items()))
    place.report()
    changed = change(records)
    for name in names.values():
        place.source.upsert(name, *changed)
    assert place.report()["carried"] == {"added": 0, "changed": 3 * len(changed), "removed": 0}
    assert place.written == {one.id for one in changed}
    for space, name in names.items():
        assert_holds(place.target.records(name), place.source.records(name).values(), space)
    assert place.report()["changed"] is False


@in_0_6_3
def test_a_changed_text_is_carried_over_and_only_its_piece_is_read(place: Watched) -> None:
    records = unit(1200)
    place.source.put(Made("pets", "l2", records))
    place.report()
    place.source.upsert("pets", replace(records[700], document="other words"), *plain(2, DIMENSION, prefix="new"))
    assert place.report()["carried"] == {"added": 2, "changed": 1, "removed": 0}
    assert embeddings_read(place) == 500 + 2
    assert_holds(place.target.records("pets"), place.source.records("pets").values(), "l2")


@in_0_6_3
def test_where_the_index_cannot_reach_all_the_others_are_read(place: Watched) -> None:
    """Vectors without any structure are what HNSW is worst at."""
    random = np.random.default_rng(5)
    records = [replace(one, embedding=random.normal(size=DIMENSION).astype(np.float32)) for one in plain(2000)]
    place.source.put(Made("pets", "l2", records))
    key = place.source.description("pets")["id"]
    all_of_them = {"query_embeddings": [records[0].embedding], "n_results": len(records), "include": ["distances"]}
    with pytest.raises(AssertionError, match="Cannot return the results in a contigious 2D array"):
        place.source.request("POST", f"/collections/{key}/query", all_of_them)
    place.report()
    assert place.report()["changed"] is False
    assert 0 < embeddings_read(place) < len(records) / 10
    place.source.upsert("pets", *with_one_made_anew(records))
    assert place.report()["carried"] == {"added": 0, "changed": 1, "removed": 0}


@in_0_6_3
def test_where_the_index_answers_nothing_all_are_read(
    source: Database, receiving: Server, chromactl: Chromactl
) -> None:
    target = same_database(receiving, source.name)
    records = unit(120)
    source.put(Made("pets", "ip", records))
    broken: list[bool] = []

    def guard(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        return (500, {"error": "no index"}) if broken and path.endswith("/query") else None

    with forwarder(source.url, guard=guard) as between:
        arguments = ["--source-url", between.url, "--target-url", target.url, "--database", source.name, "--json"]
        assert chromactl("migrate", *arguments, "--profile", "identity").code == 0
        broken.append(True)
        assert chromactl("migrate", *arguments, "--profile", "identity").json["changed"] is False
        source.upsert("pets", *with_one_float_changed(records))
        ended = chromactl("migrate", *arguments, "--profile", "identity")
    assert ended.json["carried"] == {"added": 0, "changed": 1, "removed": 0}


def with_length(record: Record, factor: float) -> Record:
    longer: NDArray[np.float32] = record.embedding * np.float32(factor)
    return replace(record, embedding=longer)


@in_0_6_3
def test_other_lengths_of_all_embeddings_are_noticed_where_the_metric_leaves_them_out(place: Watched) -> None:
    """As when a model's embeddings are normalised from some day on."""
    records = unit(300)
    place.source.put(Made("pets", "cosine", records))
    place.report()
    place.source.upsert("pets", *(with_length(one, 2) for one in records))
    assert place.report()["carried"] == {"added": 0, "changed": len(records), "removed": 0}


@in_0_6_3
def test_what_distances_cannot_show_an_exact_recheck_does(place: Watched) -> None:
    records = unit(300)
    place.source.put(Made("pets", "cosine", records))
    place.report()
    place.source.upsert("pets", with_length(records[7], 2))
    assert place.report()["changed"] is False
    assert place.report("--exact-recheck")["carried"] == {"added": 0, "changed": 1, "removed": 0}
    assert embeddings_read(place) >= len(records)


@in_0_6_3
def test_the_target_is_read_in_full(place: Watched) -> None:
    records = unit(300)
    place.source.put(Made("pets", "l2", records))
    place.report()
    place.target.upsert("pets", *with_one_float_changed(records))
    ended = place.run()
    assert (ended.code, ended.out) == (3, "")
    assert "already holds a collection pets with other content" in ended.complaint
