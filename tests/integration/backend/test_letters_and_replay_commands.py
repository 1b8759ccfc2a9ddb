"""`app dead-letters` and `app replay`: what they show, what they do in PostgreSQL, and how wrong use of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from support.app_command import App, app_in
from support.ports import free_port

HEAD = ["ID", "MEMORY", "TENANT", "KIND", "ATTEMPTS", "GIVEN", "UP", "ERROR"]
# More than are taken in one transaction.
MANY = 5001


@pytest.fixture
def app(ready_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    return app_in(tmp_path, {"DATABASE_URL": ready_url, "EMBEDDING_DIMENSION": "32"}, monkeypatch, capfd)


@pytest.fixture
def letters(ready_url: str) -> list[int]:
    """The ids of three dead letters: two of ann's, and the one between them of bob's."""
    insert = (
        "INSERT INTO dead_letters (memory_id, user_id, project_id, kind, operation, attempts, last_error, created_at) "
        "VALUES (%s, %s, 'first', %s, 'update', 8, %s, now()) RETURNING id"
    )
    return [
        rows(ready_url, insert, *values)[0][0]
        for values in (
            (11, "ann", "memory", "Chroma refused the records:\n  too \x1b[31mred"),
            (12, "bob", "passage", "HTTP 400"),
            (13, "ann", "memory", "HTTP 413"),
        )
    ]


def rows(url: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


def left(url: str) -> list[int]:
    """The dead letters that there are."""
    return [id_ for (id_,) in rows(url, "SELECT id FROM dead_letters ORDER BY id")]


def events(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT memory_id, user_id, kind, operation, attempts FROM outbox ORDER BY memory_id")


# app dead-letters list ---------------------------------------------------------------------------------------


def test_where_there_are_none_it_says_so(app: App) -> None:
    assert app("dead-letters", "list").out == "There are no dead letters.\n"
    assert app("dead-letters", "list", "--json").json == {"changed": False, "total": 0, "dead_letters": []}
    for command in ("replay", "drop"):
        ended = app("dead-letters", command, "--all")
        assert (ended.code, ended.out[:15]) == (0, "0 dead letters ")


def test_the_table_has_each_on_a_line_oldest_first(app: App, letters: Sequence[int]) -> None:
    head, *lines = app("dead-letters", "list").out.splitlines()
    assert head.split() == HEAD
    assert [line.split()[:5] for line in lines] == [
        [str(letters[0]), "11", "ann/first", "memory", "8"],
        [str(letters[1]), "12", "bob/first", "passage", "8"],
        [str(letters[2]), "13", "ann/first", "memory", "8"],
    ]
    # what would bend a terminal does not, and an error is one line
    assert lines[0].endswith("  Chroma refused the records: too \N{REPLACEMENT CHARACTER}[31mred")
    assert len({line.index("  8  ") for line in lines}) == 1


def test_no_more_are_shown_than_are_asked_for(app: App, letters: Sequence[int]) -> None:
    *_, last = app("dead-letters", "list", "--limit", "1").out.splitlines()
    assert last == "and 2 more"
    listed = app("dead-letters", "list", "--limit", "1", "--json").json
    assert (listed["total"], [one["id"] for one in listed["dead_letters"]]) == (3, letters[:1])


def test_those_of_a_tenant_as_objects(app: App, letters: Sequence[int]) -> None:
    listed = app("dead-letters", "list", "--tenant", "bob/first", "--json").json
    ((letter),) = listed.pop("dead_letters")
    assert listed == {"changed": False, "total": 1}
    for moment in ("created_at", "failed_at"):
        assert datetime.fromisoformat(letter.pop(moment)).tzinfo is not None
    assert letter == {
        "id": letters[1],
        "memory_id": 12,
        "user": "bob",
        "project": "first",
        "kind": "passage",
        "operation": "update",
        "attempts": 8,
        "error": "HTTP 400",
    }
    assert app("dead-letters", "list", "--tenant", "ann/other").out == "There are no dead letters.\n"


# app dead-letters replay, drop -------------------------------------------------------------------------------


def test_those_that_are_named_are_tried_again_from_the_first_attempt_on(
    app: App, ready_url: str, letters: Sequence[int]
) -> None:
    ended = app("dead-letters", "replay", str(letters[0]), str(letters[1]))
    assert (ended.code, ended.out) == (0, "2 dead letters are tried again\n")
    assert left(ready_url) == letters[2:]
    assert events(ready_url) == [(11, "ann", "memory", "replay", 0), (12, "bob", "passage", "replay", 0)]


def test_those_that_are_dropped_leave_no_event(app: App, ready_url: str, letters: Sequence[int]) -> None:
    ended = app("dead-letters", "drop", str(letters[2]), "--json")
    assert ended.json == {"changed": True, "dropped": 1}
    assert (left(ready_url), events(ready_url)) == (letters[:2], [])


@pytest.mark.parametrize(("command", "done"), [("replay", "replayed"), ("drop", "dropped")])
def test_all_of_a_tenant_and_all(app: App, ready_url: str, letters: Sequence[int], command: str, done: str) -> None:
    assert app("dead-letters", command, "--all", "--tenant", "ann/first", "--json").json == {"changed": True, done: 2}
    assert left(ready_url) == [letters[1]]
    assert app("dead-letters", command, "--all", "--json").json == {"changed": True, done: 1}
    assert app("dead-letters", command, "--all", "--json").json == {"changed": False, done: 0}
    assert len(events(ready_url)) == (3 if command == "replay" else 0)


def test_all_may_be_many(app: App, ready_url: str) -> None:
    rows(
        ready_url,
        "INSERT INTO dead_letters (memory_id, user_id, project_id, kind, operation, attempts, last_error, created_at) "
        "SELECT n, 'ann', 'first', 'memory', 'insert', 8, 'no', now() FROM generate_series(1, %s) n",
        MANY,
    )
    assert app("dead-letters", "replay", "--all", "--json").json == {"changed": True, "replayed": MANY}
    assert [memory_id for memory_id, *_ in events(ready_url)] == list(range(1, MANY + 1))


@pytest.mark.parametrize("command", ["replay", "drop"])
def test_one_that_is_unknown_stops_all(app: App, ready_url: str, letters: Sequence[int], command: str) -> None:
    """Also where it is another tenant's than was said."""
    unknown = max(letters) + 1
    for arguments, missing in (
        ((str(letters[0]), str(unknown)), unknown),
        ((str(letters[0]), str(letters[1]), "--tenant", "ann/first"), letters[1]),
    ):
        ended = app("dead-letters", command, *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert f"There is no dead letter {missing}. See: app dead-letters list" in ended.complaint
    assert (left(ready_url), events(ready_url)) == (letters, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay",), "or all of them with --all"),
        (("drop",), "or all of them with --all"),
        (("drop", "1", "--all"), "or all of them with --all"),
        (("drop", "--tenant", "ann/first"), "or all of them with --all"),
        (("drop", "0"), "0 is not in the range x>=1"),
        (("replay", "eleven"), "'eleven' is not a valid integer"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("forget",), "No such command 'forget'"),
    ],
)
def test_wrong_use_changes_nothing(
    app: App, ready_url: str, letters: Sequence[int], arguments: tuple[str, ...], says: str
) -> None:
    ended = app("dead-letters", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert (left(ready_url), events(ready_url)) == (letters, [])


# app replay --------------------------------------------------------------------------------------------------

# How long ago each memory was written; and the deletions.
AGES = {1: timedelta(minutes=9, seconds=30), 2: timedelta(hours=3), 3: timedelta(days=2), 4: timedelta(days=20)}
DELETED = {101: timedelta(minutes=30), 102: timedelta(days=5)}


@pytest.fixture
def history(ready_url: str) -> str:
    """Memories and deletions of several ages, all of which the index knows; the database's URL."""
    for memory_id, age in AGES.items():
        rows(
            ready_url,
            "INSERT INTO memory_logs (id, user_id, project_id, raw_data, updated_at) "
            "VALUES (%s, %s, 'first', %s::jsonb, now() - %s)",
            *(memory_id, "bob" if memory_id == 2 else "ann", '{"content": "x", "metadata": {}}', age),
        )
    for memory_id, age in DELETED.items():
        rows(
            ready_url,
            "INSERT INTO tombstones (memory_id, user_id, project_id, kind, deleted_at) "
            "VALUES (%s, 'ann', 'second', 'passage', now() - %s)",
            *(memory_id, age),
        )
    rows(ready_url, "DELETE FROM outbox")
    return ready_url


@pytest.mark.parametrize(
    ("since", "replayed"),
    [
        ("30s", []),
        ("9m", [1]),  # with a minute more, for what was under way
        ("90m", [1, 101]),
        ("5400 s", [1, 101]),
        ("4h", [1, 2, 101]),
        ("3d", [1, 2, 3, 101]),
        ("1w", [1, 2, 3, 101, 102]),
    ],
)
def test_what_was_changed_or_deleted_since_is_done_again(
    app: App, history: str, since: str, replayed: list[int]
) -> None:
    ended = app("replay", "--since", since, "--json")
    assert (ended.code, ended.err) == (0, "")
    memories = len([id_ for id_ in replayed if id_ in AGES])
    result = ended.json
    assert datetime.fromisoformat(result.pop("since")).tzinfo is not None
    assert result == {
        "changed": bool(replayed),
        "memories": memories,
        "deletions": len(replayed) - memories,
        "deletions_forgotten": False,
    }
    assert [(id_, operation) for id_, *_, operation, _ in events(history)] == [(id_, "replay") for id_ in replayed]


def test_a_time_may_have_any_zone(app: App, history: str) -> None:
    moment = datetime.now(UTC) - timedelta(hours=4)
    elsewhere = (moment + timedelta(hours=1)).replace(tzinfo=None).isoformat(timespec="seconds")
    for given in (moment.isoformat(), f"{moment:%Y-%m-%dT%H:%MZ}", f"{elsewhere}+01:00", f" {moment:%Y-%m-%d %H:%M}Z "):
        assert app("replay", "--since", given, "--json").json["memories"] == 2
    said = app("replay", "--since", f"{moment:%Y-%m-%dT%H:%M:00Z}").out
    begin = (moment.replace(second=0, microsecond=0) - timedelta(minutes=1)).isoformat(timespec="seconds")
    assert said == f"2 memories and 1 deletions since {begin} (with 60 s more)\n"


def test_only_what_is_named_is_done_again(app: App, history: str) -> None:
    assert app("replay", "--since", "1w", "--user", "bob", "--json").json["memories"] == 1
    assert [memory_id for memory_id, *_ in events(history)] == [2]
    narrowed = app("replay", "--since", "1w", "--user", "ann", "--project", "second", "--json").json
    assert (narrowed["memories"], narrowed["deletions"]) == (0, 2)


def test_it_warns_where_deletions_may_be_forgotten(app: App, history: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDEX_TOMBSTONE_DAYS", "2")
    assert app("replay", "--since", "1d").err == ""
    ended = app("replay", "--since", "3d", "--json")
    assert ended.code == 0
    assert ended.json["deletions_forgotten"] is True
    assert "INDEX_TOMBSTONE_DAYS=2 days, and that is not long enough" in ended.err
    assert ended.err.endswith("run: app rebuild\n")


@pytest.mark.parametrize(
    ("since", "says"),
    [
        ("yesterday", "'yesterday' is neither a time nor a duration. Give a time with its zone"),
        ("-5m", "neither a time nor a duration"),
        ("5y", "neither a time nor a duration"),
        ("2026-11-20T10:15", "'2026-11-20T10:15' does not say its time zone"),
        ("2999-01-01T00:00Z", "is yet to come: PostgreSQL has 2"),
        ("999999w", "999999w ago is before all time"),
    ],
)
def test_what_is_no_time_replays_nothing(app: App, history: str, since: str, says: str) -> None:
    ended = app("replay", f"--since={since}")
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.complaint
    assert events(history) == []


def test_without_a_time_it_says_what_is_missing(app: App) -> None:
    ended = app("replay")
    assert (ended.code, ended.out) == (2, "")
    assert "Missing option '--since'" in ended.err


# Both --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("dead-letters", "list"), ("dead-letters", "drop", "--all"), ("replay", "--since", "1h")]
)
def test_a_database_that_is_not_there_or_has_no_tables_is_told_in_one_line(
    app: App, database_url: str, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    bare = app(*command)
    assert (bare.code, bare.out) == (3, "")
    assert "app database upgrade" in bare.complaint
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    away = app(*command)
    assert (away.code, away.out) == (1, "")
    assert "PostgreSQL" in away.complaint
