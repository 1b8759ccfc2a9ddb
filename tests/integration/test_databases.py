"""Every database of a tenant, each into one of its name; and a target under another database's name."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.command import Chromactl
from support.databases import DEFAULT, Database, assert_holds, same_database
from support.ended import Ended
from support.forwarder import forwarder
from support.moments import Watch
from support.process import running
from support.records import Made, nasty, plain
from support.servers import Server, Version, chroma_server
from support.trees import tree

NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server without anything."""
    with chroma_server(tmp_path / "fresh") as server:
        yield server


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Server]:
    """A server with data in three databases, and none in its default one."""
    with chroma_server(tmp_path / "many") as server:
        fill(server)
        yield server


def fill(server: Server) -> None:
    for number, name in enumerate(NAMES):
        same_database(server, name).put(Made("pets", "l2", plain(20, seed=number)), Made(f"{name}_own", "ip", plain(3)))


def databases(server: Server) -> set[str]:
    answer = httpx.get(f"{server.url}/api/v2/tenants/default_tenant/databases", trust_env=False)
    return {entry["name"] for entry in answer.json()}


def arguments(source: str, target: str, *more: object) -> list[str]:
    place = ["--source-url", source, "--target-url", target, "--all-databases"]
    return ["migrate", *place, "--profile", "identity", "--json", *(str(word) for word in more)]


def check(server: Server) -> None:
    for number, name in enumerate(NAMES):
        database = Database(server, name)
        assert database.names() == sorted(["pets", f"{name}_own"])
        assert_holds(database.records("pets"), plain(20, seed=number), "l2")
        assert_holds(database.records(f"{name}_own"), plain(3), "ip")


def test_each_lands_in_one_of_its_name_which_is_made(many: Server, fresh: Server, chromactl: Chromactl) -> None:
    ended = chromactl(*arguments(many.url, fresh.url))
    assert ended.code == 0, ended.err
    check(fresh)
    report = ended.json
    assert (report["changed"], report["status"], report["empty"]) == (True, "complete", [DEFAULT])
    assert sorted(report["databases"]) == sorted(NAMES)
    assert report["databases"]["beta"]["collections"]["beta_own"]["verified"] == 3
    again = chromactl(*arguments(many.url, fresh.url)).json
    assert (again["changed"], again["status"]) == (False, "unchanged")


def test_a_change_in_one_database_is_carried_over_there(many: Server, fresh: Server, chromactl: Chromactl) -> None:
    chromactl(*arguments(many.url, fresh.url))
    Database(many, "beta").upsert("pets", *plain(1, prefix="new"))
    report = chromactl(*arguments(many.url, fresh.url)).json
    assert report["changed"] is True
    assert {name: one["changed"] for name, one in report["databases"].items()} == {
        "alpha": False, "beta": True, "gamma": False,
    }  # fmt: skip
    assert report["databases"]["beta"]["carried"]["added"] == 1
    assert Database(fresh, "beta").counts()["pets"] == 21


@pytest.mark.parametrize("version", ["0.6.3", "1.0.21"])
def test_from_an_older_server(version: Version, fresh: Server, chromactl: Chromactl, tmp_path: Path) -> None:
    with chroma_server(tmp_path / "old", version=version) as old:
        fill(old)
        Database(old).put(Made("nasty", "cosine", nasty(lists=False)))
        ended = chromactl(*arguments(old.url, fresh.url))
        assert ended.code == 0, ended.err
        check(fresh)
        assert_holds(Database(fresh).records("nasty"), nasty(lists=False), "cosine")
        assert ended.json["empty"] == []


@pytest.mark.parametrize("version", ["0.5.23", "0.4.24"])
def test_a_server_that_cannot_list_databases_is_refused_with_a_sentence(
    version: Version, fresh: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    with chroma_server(tmp_path / "old", version=version) as old:
        ended = chromactl(*arguments(old.url, fresh.url))
    assert (ended.code, ended.out) == (3, "")
    assert "--database" in ended.complaint
    assert databases(fresh) == {DEFAULT}


def test_from_and_into_directories(many: Server, chromactl: Chromactl, tmp_path: Path) -> None:
    many.stop()
    before = tree(many.path)
    ended = chromactl(*arguments(f"path:{many.path}", f"path:{tmp_path}/new"))
    assert ended.code == 0, ended.err
    assert tree(many.path) == before
    assert chromactl(*arguments(f"path:{many.path}", f"path:{tmp_path}/new")).json["changed"] is False
    with chroma_server(tmp_path / "new") as server:
        check(server)


@pytest.mark.parametrize("url", ["snapshot:out", "out.json"])
def test_a_file_holds_one_database(many: Server, chromactl: Chromactl, tmp_path: Path, url: str) -> None:
    ended = chromactl(*arguments(many.url, url))
    assert ended.code == 2
    assert "one database" in ended.complaint
    assert not list(tmp_path.glob("*out*"))


def test_a_dry_run_makes_no_database_and_writes_nothing(
    many: Server, fresh: Server, chromactl: Chromactl, tmp_path: Path
) -> None:
    watch = Watch()
    with forwarder(fresh.url, guard=watch.guard("target")) as between:
        ended = chromactl(*arguments(many.url, between.url, "--dry-run"))
        assert {method for method, _ in between.passed} <= {"GET"}
    assert ended.code == 0, ended.err
    report = ended.json
    assert (report["changed"], report["status"]) == (True, "dry-run")
    assert {name: one["advice"] for name, one in report["databases"].items()} == dict.fromkeys(NAMES, "PROCEED")
    assert databases(fresh) == {DEFAULT}
    assert not (tmp_path / "migration_checkpoints").exists()


def failing(many: Server, fresh: Server, chromactl: Chromactl) -> Ended:
    """A run in which one database's target holds something else."""
    same_database(fresh, "beta").put(Made("pets", "l2", plain(4, prefix="theirs")))
    return chromactl(*arguments(many.url, fresh.url))


def test_what_fails_in_one_database_leaves_the_others_done(many: Server, fresh: Server, chromactl: Chromactl) -> None:
    ended = failing(many, fresh, chromactl)
    assert (ended.code, ended.out) == (3, "")
    assert "beta" in ended.complaint
    assert "already holds a collection pets with other content" in ended.complaint
    for number, name in ((0, "alpha"), (2, "gamma")):
        assert_holds(Database(fresh, name).records("pets"), plain(20, seed=number), "l2")
    assert Database(fresh, "beta").counts() == {"pets": 4}
    Database(fresh, "beta").drop("pets")
    report = chromactl(*arguments(many.url, fresh.url)).json
    assert {name: one["changed"] for name, one in report["databases"].items()} == {
        "alpha": False, "beta": True, "gamma": False,
    }  # fmt: skip
    check(fresh)


@pytest.mark.parametrize("moment", [1, 3, 6])
def test_killed_it_goes_on_with_the_database_that_was_under_way(
    many: Server, fresh: Server, chromactl: Chromactl, tmp_path: Path, moment: int
) -> None:
    watch = Watch(counts=lambda side, path, body: path.endswith("/add"))
    with forwarder(fresh.url, guard=watch.guard("target")) as between:
        with running(tmp_path, *arguments(many.url, between.url)) as run:
            watch.begin(at=moment, act=run.strike)
            run.process.wait()
            assert watch.happened.is_set(), run.end().err
            assert run.gone().code == -signal.SIGKILL
        ended = chromactl(*arguments(many.url, between.url))
        assert ended.code == 0, ended.err
        check(fresh)
        assert chromactl(*arguments(many.url, between.url)).json["changed"] is False


# Names of the target's own


def test_the_target_database_can_have_another_name(
    pair: tuple[Database, Database], receiving: Server, chromactl: Chromactl
) -> None:
    source, target = pair
    other = same_database(receiving, f"{target.name}_other")
    source.put(Made("pets", "l2", plain(9)))
    place = ["--source-url", source.url, "--database", source.name, "--target-url", target.url]
    for changed in (True, False):
        ended = chromactl("migrate", *place, "--target-database", other.name, "--profile", "identity", "--json")
        assert (ended.code, ended.json["changed"]) == (0, changed), ended.err
    assert_holds(other.records("pets"), plain(9), "l2")
    assert target.names() == []


def test_one_database_of_a_server_can_go_into_another(
    pair: tuple[Database, Database], modern: Server, chromactl: Chromactl
) -> None:
    source, _ = pair
    other = same_database(modern, f"{source.name}_other")
    source.put(Made("pets", "l2", plain(9)))
    place = ["--source-url", source.url, "--database", source.name, "--target-url", source.url]
    ended = chromactl("migrate", *place, "--target-database", other.name, "--profile", "identity")
    assert ended.code == 0, ended.err
    assert_holds(other.records("pets"), plain(9), "l2")


def test_the_target_tenant_can_be_another(fresh: Server, pair: tuple[Database, Database], chromactl: Chromactl) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(9)))
    for path, body in (("tenants", {"name": "guest"}), ("tenants/guest/databases", {"name": source.name})):
        assert httpx.post(f"{fresh.url}/api/v2/{path}", json=body, trust_env=False).status_code == 200
    place = ["--source-url", source.url, "--database", source.name, "--target-url", fresh.url]
    ended = chromactl("migrate", *place, "--target-tenant", "guest", "--profile", "identity")
    assert ended.code == 0, ended.err
    root = f"{fresh.url}/api/v2/tenants/guest/databases/{source.name}/collections"
    assert [entry["name"] for entry in httpx.get(root, trust_env=False).json()] == ["pets"]
    assert databases(fresh) == {DEFAULT}


@pytest.mark.parametrize(("option", "word"), [("--target-tenant", "tenant"), ("--target-database", "database")])
def test_a_tenant_or_database_that_is_not_there_is_not_made_in_silence(
    fresh: Server, pair: tuple[Database, Database], chromactl: Chromactl, option: str, word: str
) -> None:
    source, _ = pair
    source.put(Made("pets", "l2", plain(9)))
    place = ["--source-url", source.url, "--database", source.name, "--target-url", fresh.url, "--target-database"]
    ended = chromactl("migrate", *place, DEFAULT, option, "nobody", "--profile", "identity")
    assert ended.code == 3
    assert "nobody" in ended.err
    assert word in ended.err
    assert databases(fresh) == {DEFAULT}
