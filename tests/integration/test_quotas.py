"""A target and a source with the quotas of Chroma Cloud: shrink, go on, and name what can never land."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from chromactl.errors import ChromactlError
from chromactl.options import access
from chromactl.stores.http_target import HttpTarget
from chromactl.stores.opening import open_target
from support.command import Chromactl
from support.databases import Database, assert_holds, new_database, same_database
from support.forwarder import Forwarder, forwarder
from support.quota_proxy import Limits, quotas
from support.records import Made, Record, batch_of, plain, spec_of
from support.servers import Server
from support.store_contract import RUN

TOKEN = "ck-s3cret"
DIMENSION = 8


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


@contextmanager
def cloud(server: Server, token: Path, limits: Limits) -> Iterator[tuple[Forwarder, HttpTarget, Database]]:
    """A database behind the quotas, open as a target."""
    database = new_database(server)
    with forwarder(server.url, guard=quotas(limits), token=TOKEN) as between:
        entry = access(between.url, "target", token, "default_tenant", database.name)
        with closing(open_target(entry, "")) as target:
            assert isinstance(target, HttpTarget)
            yield between, target, database


@pytest.mark.parametrize("told", [True, False])
def test_many_records_are_written_and_read_in_what_the_server_takes(receiving: Server, token: Path, told: bool) -> None:
    records = plain(1203)
    with cloud(receiving, token, Limits(told=told)) as (between, target, database):
        staged = target.stage(spec_of(Made("pets", "l2", records)), RUN)
        assert target.write(staged, batch_of(records[:1000])) == []
        first = between.times("/add")
        assert target.write(staged, batch_of(records[1000:])) == []
        # 1,000 at once, refused; then what was learned: 300, or the half of a half where no number is said.
        assert first == (5 if told else 6)
        assert between.times("/add") == first + 1
        ids = target.ids(staged)
        assert sorted(ids) == sorted(record.id for record in records)
        batch, unreadable = target.read(staged, ids)
        assert (sorted(batch.ids), unreadable) == (sorted(ids), [])
        assert len(target.read_text(staged, ids)) == 1203
        before = between.times("/get")
        target.read(staged, ids)
        assert between.times("/get") - before == 5  # nothing is refused a second time
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), records, "l2")


def over(number: int) -> dict[str, Record]:
    """A record for each quota, over it."""
    one = plain(1, prefix=f"bad{number}-")[0]
    return {
        "document": replace(one, id=f"document{number}", document="ü" * 8_193),
        "uri": replace(one, id=f"uri{number}", uri="u" * 257),
        "id": replace(one, id=f"{number}" + "i" * 128),
        "k" * 37: replace(one, id=f"key{number}", metadata={"k" * 37: 1}),
        "metadata": replace(one, id=f"keys{number}", metadata={f"k{key}": key for key in range(33)}),
        "value": replace(one, id=f"value{number}", metadata={"value": "v" * 8_183, "short": "v"}),
    }


@pytest.mark.parametrize("told", [True, False])
def test_a_record_over_a_quota_is_named_and_all_others_are_written(receiving: Server, token: Path, told: bool) -> None:
    records = plain(1000)
    bad = [record for number in range(5) for record in over(number).values()]
    with cloud(receiving, token, Limits(told=told)) as (between, target, database):
        staged = target.stage(spec_of(Made("pets", "l2", records)), RUN)
        mixed = [*records[:400], *bad, *records[400:]]
        rejects = target.write(staged, batch_of(mixed))
        requests = between.times("/add")
        target.swap([staged], RUN)
    assert sorted(reject.id for reject in rejects) == sorted(record.id for record in bad)
    assert {reject.reason for reject in rejects} == {"over_quota"}
    assert all(len(reject.value) <= 200 and reject.value.startswith("Quota exceeded") for reject in rejects)
    if told:
        fields = {record.id: field for number in range(5) for field, record in over(number).items()}
        assert {reject.id: reject.field for reject in rejects} == fields
        by_id = {reject.id: reject.value for reject in rejects}
        assert "usage of 16386 exceeds limit of 16384" in by_id["document4"]
        # Each limit is learned by one refusal, not by looking for each record.
        assert requests < 20
    else:
        assert {reject.field for reject in rejects} == {"record"}
    assert_holds(database.records("pets"), records, "l2")


def test_what_is_just_within_the_quotas_is_written(receiving: Server, token: Path) -> None:
    one = plain(1)[0]
    records = [
        replace(one, id="i" * 128, document="d" * 16_384, uri="u" * 256),
        replace(one, id="m", metadata={"k" * 36: "v" * 8_182, **{f"k{key}": key for key in range(31)}}),
        replace(one, id="over", document="d" * 16_385),
    ]
    with cloud(receiving, token, Limits()) as (_, target, database):
        staged = target.stage(spec_of(Made("pets", "l2", records)), RUN)
        assert [reject.id for reject in target.write(staged, batch_of(records))] == ["over"]
        assert [reject.id for reject in target.write(staged, batch_of(records), repeat=True)] == ["over"]
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), records[:2], "l2")


def test_threads_learn_together(receiving: Server, token: Path) -> None:
    records = plain(2000)
    with cloud(receiving, token, Limits()) as (between, target, database):
        staged = target.stage(spec_of(Made("pets", "l2", records)), RUN)
        parts = list(batch_of(records).slices(500))
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda part: target.write(staged, part), parts)) == [[]] * 4
            ids = target.ids(staged)
            slices = [ids[start : start + 500] for start in range(0, 2000, 500)]
            read = list(pool.map(lambda some: target.read(staged, some)[0], slices))
        assert [len(batch) for batch in read] == [500] * 4
        assert between.times("/add") <= 4 + 8
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), records, "l2")


def test_amending_within_quotas_leaves_nothing_of_a_record_that_is_over_them(receiving: Server, token: Path) -> None:
    wide = [replace(one, metadata={f"old{key}": key for key in range(20)}) for one in plain(700)]
    new = [replace(one, metadata={f"new{key}": key for key in range(20)}, document="d") for one in wide]
    new[5] = replace(new[5], document="d" * 16_385)
    with cloud(receiving, token, Limits()) as (_, target, database):
        staged = target.stage(spec_of(Made("pets", "l2", wide)), RUN)
        target.write(staged, batch_of(wide))
        rejects = target.amend(staged, batch_of(new[:650]), [one.id for one in wide[650:]])
        assert [(reject.id, reject.field) for reject in rejects] == [(new[5].id, "document")]
        target.discard(target.stage(spec_of(Made("other", "l2", wide)), RUN))
        target.swap([staged], RUN)
    assert_holds(database.records("pets"), [*new[:5], *new[6:650]], "l2")


def test_a_limit_of_the_whole_collection_ends_with_the_servers_words(receiving: Server) -> None:
    words = (
        "Quota exceeded: 'Collection size (records)' exceeded quota limit for action 'Add': current usage of 5000001 "
        "exceeds limit of 5000000"
    )
    database = new_database(receiving)

    def guard(path: str, body: dict[str, object]) -> tuple[int, object] | None:
        return (422, {"error": "ChromaError", "message": words}) if path.endswith("/add") else None

    with forwarder(receiving.url, guard=guard) as between:
        entry = access(between.url, "target", None, "default_tenant", database.name)
        with closing(open_target(entry, "")) as target:
            staged = target.stage(spec_of(Made("pets", "l2", plain(50))), RUN)
            with pytest.raises(ChromactlError, match="Collection size"):
                target.write(staged, batch_of(plain(50)))
        assert between.times("/add") == 1


def test_a_body_that_is_too_large_is_halved_and_remembered(receiving: Server) -> None:
    database = new_database(receiving)
    largest = 60_000

    with forwarder(receiving.url) as between:

        def guard(path: str, body: dict[str, object]) -> tuple[int, object] | None:
            texts = body.get("documents")
            size = sum(len(str(text)) for text in texts) if isinstance(texts, list) else 0
            return (413, {"message": "length limit exceeded"}) if size > largest else None

        between.guard = guard
        entry = access(between.url, "target", None, "default_tenant", database.name)
        records = [replace(one, document="d" * 1000) for one in plain(400)]
        giant = replace(plain(1, prefix="giant")[0], document="d" * 60_001)
        with closing(open_target(entry, "")) as target:
            staged = target.stage(spec_of(Made("pets", "l2", records)), RUN)
            (reject,) = target.write(staged, batch_of([*records[:200], giant]))
            assert (reject.id, reject.field, reject.reason) == (giant.id, "record", "over_quota")
            before = between.times("/add")
            assert target.write(staged, batch_of(records[200:])) == []
            assert between.times("/add") - before < 20
            target.swap([staged], RUN)
    assert_holds(database.records("pets"), records, "l2")


def test_a_migration_to_a_target_with_quotas(
    chromactl: Chromactl, modern: Server, receiving: Server, token: Path, tmp_path: Path
) -> None:
    source = new_database(modern)
    records = plain(900)
    bad = list(over(1).values())
    source.put(Made("pets", "l2", [*records[:500], *bad, *records[500:]]))
    target = same_database(receiving, source.name)
    with forwarder(receiving.url, guard=quotas(Limits()), token=TOKEN) as between:
        place = ["--source-url", source.url, "--target-url", between.url, "--database", source.name]
        command = ["migrate", *place, "--profile", "identity", "--target-token-file", token, "--json"]
        ended = chromactl(*command)
        assert ended.code == 0, ended.err
        assert ended.json["rejects"]["by_reason"] == {"over_quota": len(bad)}
        again = chromactl(*command)
        assert (again.code, again.json["changed"]) == (0, False), again.err
    (file,) = (tmp_path / "migration_logs").glob("*.rejects.jsonl")
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert {(line["id"], line["field"]) for line in lines} == {(record.id, field) for field, record in over(1).items()}
    assert_holds(target.records("pets"), records, "l2")
