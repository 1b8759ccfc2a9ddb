"""A migration from end to end, read back by Chroma's own client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.records import Made, menagerie, plain
from support.servers import Server, Version, chroma_server
from support.trees import tree

VERSIONS: tuple[Version, ...] = get_args(Version)
SOURCES = [*VERSIONS, *(f"path {version}" for version in VERSIONS), "snapshot", "json"]
WAYS = [
    *((source, "1.5.9") for source in SOURCES),
    *((source, "path") for source in ("0.4.24", "0.6.3", "path 0.6.3", "path 1.5.9", "snapshot")),
    *((source, "snapshot") for source in ("0.4.24", "0.6.3", "1.5.9", "json")),
    *((source, "json") for source in ("0.6.3", "1.5.9", "snapshot")),
]


@dataclass(frozen=True, slots=True)
class Sources:
    """Every kind of source with the menagerie in it: how options name it."""

    servers: Mapping[Version, Server]
    directories: Mapping[Version, Path]
    files: Path
    folder: Path

    def server(self, kind: str) -> Server | None:
        return next((self.servers[version] for version in VERSIONS if kind == version), None)

    def path(self, kind: str) -> Path:
        return next((self.directories[version] for version in VERSIONS if kind == f"path {version}"), self.files)

    def options(self, kind: str) -> list[str]:
        server = self.server(kind)
        if server is None:
            urls = {"snapshot": f"snapshot:{self.files}/s", "json": f"{self.files}/b.json"}
            return ["--source-url", urls.get(kind, f"path:{self.path(kind)}")]
        if server.token is None:
            return ["--source-url", server.url]
        token = self.folder / "source.token"
        token.write_text(f"{server.token}\n")
        return ["--source-url", server.url, "--source-token-file", str(token)]

    def lists(self, kind: str) -> bool:
        return "1.5.9" in kind or kind in ("snapshot", "json")

    def state(self, kind: str) -> object:
        """What no migration may change."""
        server = self.server(kind)
        if server is None:
            return tree(self.path(kind))
        database = Database(server)
        return {name: database.description(name) for name in database.names()}, database.counts()


@pytest.fixture
def sources(
    servers: Mapping[Version, Server],
    directories: Mapping[Version, Path],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    chromactl: Chromactl,
) -> Sources:
    files = tmp_path_factory.getbasetemp() / "files"
    if not files.exists():
        for url in (f"snapshot:{files}/s", f"{files}/b.json"):
            place = ["--source-url", servers["1.5.9"].url, "--target-url", url]
            ended = chromactl("migrate", *place, "--profile", "identity")
            assert ended.code == 0, ended.err
    return Sources(servers, directories, files, tmp_path)


@contextmanager
def read_back(kind: str, url: str, folder: Path, chromactl: Chromactl) -> Iterator[Database]:
    """The target under a server of its own kind; files are brought into one first."""
    if kind == "path":
        with chroma_server(folder / "new") as server:
            yield Database(server)
    else:
        with chroma_server(folder / "read back") as server:
            ended = chromactl("migrate", "--source-url", url, "--target-url", server.url, "--profile", "identity")
            assert ended.code == 0, ended.err
            yield Database(server)


def check(database: Database, wanted: list[Made]) -> None:
    assert database.names() == [made.name for made in wanted]
    for made in wanted:
        assert_holds(database.records(made.name), made.records, made.space)
        described = database.description(made.name)
        index = described["configuration_json"]["hnsw"]
        assert index["space"] == made.space
        assert {key: index[key] for key in made.hnsw} == made.hnsw
        metadata = {key: value for key, value in (described["metadata"] or {}).items() if not key.startswith("hnsw:")}
        assert metadata == (made.metadata or {})
        if made.records:
            assert database.metric(made.name) == made.space


@pytest.mark.parametrize(("source", "target"), WAYS)
def test_everything_arrives_and_the_source_stays(
    source: str, target: str, sources: Sources, chromactl: Chromactl, tmp_path: Path
) -> None:
    wanted = menagerie(lists=sources.lists(source))
    before = sources.state(source)
    options = ["migrate", *sources.options(source), "--profile", "identity", "--json"]
    if target == "1.5.9":
        with chroma_server(tmp_path / "new") as server:
            ended = chromactl(*options, "--target-url", server.url)
            assert ended.code == 0, ended.err
            check(Database(server), wanted)
    else:
        url = {"path": f"path:{tmp_path}/new", "snapshot": f"snapshot:{tmp_path}/n", "json": f"{tmp_path}/n.json"}
        ended = chromactl(*options, "--target-url", url[target])
        assert ended.code == 0, ended.err
        with read_back(target, url[target], tmp_path, chromactl) as database:
            check(database, wanted)
    assert sources.state(source) == before
    report = ended.json
    assert (report["changed"], report["status"]) == (True, "complete")
    counts = {name: (entry["source"], entry["imported"], entry["verified"], entry["rejected"])
              for name, entry in report["collections"].items()}  # fmt: skip
    assert counts == {made.name: (*[len(made.records)] * 3, 0) for made in wanted}
    assert {name: entry["space"] for name, entry in report["collections"].items()} == {
        made.name: made.space for made in wanted
    }


def test_old_cosine_collections_that_call_themselves_l2_stay_cosine(
    sources: Sources, legacy: Server, receiving: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    described = Database(legacy).description("nasty_cosine")
    assert described["configuration_json"]["hnsw_configuration"]["space"] == "l2"
    with chroma_server(tmp_path / "new") as server:
        ended = chromactl("migrate", *sources.options("0.6.3"), "--target-url", server.url, "--profile", "identity")
        assert ended.code == 0, ended.err
        assert Database(server).metric("nasty_cosine") == "cosine"


def test_the_runbooks_sample_arrives_in_the_new_schema(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    place = ["--database", source.name, "--json"]
    made = chromactl("sample", "--url", source.url, "--chunks", 200, "--dim", 16, *place)
    assert (made.code, made.json["changed"]) == (0, True), made.err
    again = chromactl("sample", "--url", source.url, "--chunks", 200, "--dim", 16, *place)
    assert (again.code, again.json["changed"]) == (0, False), again.err
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *place)
    assert ended.code == 0, ended.err
    assert target.counts() == source.counts() == made.json["collections"]
    assert ended.json["rejects"] == {"total": 0, "by_reason": {}, "unplaced": {}}
    for name in target.names():
        old, new = source.records(name), target.records(name)
        assert set(old) == set(new)
        for record, now in new.items():
            assert now.document == old[record].document
            metadata, was = now.metadata or {}, old[record].metadata or {}
            assert metadata["source_file"] == was["file"]
            assert metadata["source_line"] == was["line"]
            assert metadata["authenticity_score"] == was["authenticity"]
            assert metadata["collection_type"] == name.removeprefix("sergio_")
            assert metadata["language"] == {"english": "en", "spanish": "es", "mixed": "es_en"}[was["lang"]]
            assert "lang" not in metadata
        assert target.metric(name) == "cosine"


def test_a_collection_that_the_profile_does_not_name_is_left_alone_and_said(
    pair: tuple[Database, Database], chromactl: Chromactl
) -> None:
    source, target = pair
    source.put(Made("sergio_corpus", "l2", plain(5)), Made("other", "l2", plain(5)))
    ended = chromactl(
        "migrate", "--source-url", source.url, "--target-url", target.url, "--database", source.name, "--json"
    )
    assert ended.code == 0, ended.err
    assert target.names() == ["sergio_corpus"]
    assert ended.json["skipped"] == ["other"]


def test_only_the_collections_that_were_asked_for(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    source.put(*(Made(name, "l2", plain(5)) for name in ("aaa", "bbb", "ccc")))
    options = ["--database", source.name, "--profile", "identity", "--collection", "aaa", "--collection", "ccc"]
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *options)
    assert ended.code == 0, ended.err
    assert target.names() == ["aaa", "ccc"]


def test_small_batches_and_several_shards_arrive_whole(pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, target = pair
    made = Made("pets", "l2", plain(2300))
    source.put(made)
    options = ["--database", source.name, "--profile", "identity", "--batch-size", "77"]
    ended = chromactl("migrate", "--source-url", source.url, "--target-url", target.url, *options)
    assert ended.code == 0, ended.err
    assert_holds(target.records("pets"), made.records, "l2")
