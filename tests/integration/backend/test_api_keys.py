"""Keys: issued once, kept as a hash, asked for in PostgreSQL and remembered for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from app.core.database.database import Database, database_url
from app.core.database.upgrade import upgrade
from app.core.errors import DatabaseUnavailable, InvalidKey
from app.core.keys.doorkeeper import MAX_REMEMBERED, Doorkeeper
from app.core.keys.key import Key
from app.core.keys.repository import IssuedKey, KeyRepository
from app.core.memory.tenant import Tenant
from support.app_command import App, app_in
from support.postgres import Postgres
from support.service import DIMENSION

ANN, BEN = Tenant("ann", "first"), Tenant("ben", "first")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class House:
    """Keys, and who looks at them; `refused` holds why somebody was turned away."""

    def __init__(self, database: Database, seconds: float) -> None:
        self.keys = KeyRepository(database)
        self.clock = Clock()
        self.refused: list[str] = []
        self.door = Doorkeeper(self.keys, seconds, self.clock, self.refused.append)

    async def lets_in(self, key: Key | str | None) -> Tenant | None:
        """Whom, or None when it is turned away."""
        try:
            return await self.door.tenant(key.reveal() if isinstance(key, Key) else key)
        except InvalidKey:
            return None

    async def issue(self, tenant: Tenant = ANN, seconds: float | None = None) -> Key:
        ends = datetime.now(UTC) + timedelta(seconds=seconds) if seconds is not None else None
        return (await self.keys.issue(tenant, expires_at=ends))[0]


@asynccontextmanager
async def house(url: str, seconds: float = 10.0) -> AsyncIterator[House]:
    database = Database(database_url(SecretStr(url)), 3, 5.0)
    try:
        yield House(database, seconds)
    finally:
        await database.close()


@pytest.fixture
def tables(database_url: str) -> str:
    """A new database with our tables."""
    prepare(database_url)
    return database_url


def prepare(url: str) -> None:
    upgrade(database_url(SecretStr(url)), DIMENSION)


def rows(url: str, query: str) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_key_lets_its_tenant_in_and_no_other_key_does(tables: str) -> None:
    async def test() -> None:
        async with house(tables) as here:
            ann, ben = await here.issue(ANN), await here.issue(BEN)
            assert (await here.lets_in(ann), await here.lets_in(ben)) == (ANN, BEN)
            stranger = Key.new()
            for id_, secret in ((stranger, stranger), (ann, ben), (ann, stranger), (stranger, ann)):
                assert await here.lets_in(Key(id_.id, secret.secret)) is None
            assert here.refused == ["unknown"] * 4
            assert (await here.lets_in(None), await here.lets_in("cs_x"), await here.lets_in("")) == (None,) * 3
            assert here.refused[4:] == ["missing", "malformed", "missing"]

    asyncio.run(test())


def test_the_database_holds_the_hash_and_nothing_of_the_secret(tables: str) -> None:
    async def test() -> Key:
        async with house(tables) as here:
            key = await here.issue()
            assert await here.lets_in(key) == ANN
            return key

    key = asyncio.run(test())
    names = rows(tables, "SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public'")
    held = " ".join(text for (name,) in names for (text,) in rows(tables, f"SELECT t::text FROM {name} t"))  # noqa: S608
    assert key.id in held
    assert key.hash().hex() in held
    secret = key.secret.get_secret_value()
    assert secret not in held
    assert secret.encode().hex() not in held


def test_a_revoked_key_is_let_in_until_it_is_forgotten(tables: str) -> None:
    async def test() -> None:
        async with house(tables) as here:
            key = await here.issue()
            assert await here.lets_in(key) == ANN
            done = await here.keys.revoke(key.id)
            assert done is not None
            assert done.changed
            here.clock.now = 9.9
            assert await here.lets_in(key) == ANN
            here.clock.now = 10.0
            assert await here.lets_in(key) is None
            here.clock.now = 0.0  # not remembered either
            assert await here.lets_in(key) is None

    asyncio.run(test())


def test_a_key_that_expires_is_not_remembered_any_longer(tables: str) -> None:
    async def test() -> None:
        async with house(tables, seconds=3600) as here:
            key = await here.issue(seconds=60)
            assert await here.lets_in(key) == ANN
            await here.keys.revoke(key.id)  # so that it shows whether it is asked for
            here.clock.now = 59.0
            assert await here.lets_in(key) == ANN
            here.clock.now = 60.0
            assert await here.lets_in(key) is None

    asyncio.run(test())


def test_an_expired_key_lets_nobody_in(tables: str) -> None:
    async def test() -> None:
        async with house(tables) as here:
            assert await here.lets_in(await here.issue(seconds=-1)) is None
            assert await here.lets_in(await here.issue(seconds=3600)) == ANN

    asyncio.run(test())


def test_a_wrong_key_is_not_remembered(tables: str) -> None:
    async def test() -> None:
        async with house(tables) as here:
            key = await here.issue()
            await here.keys.revoke(key.id)
            for _ in range(3):
                assert await here.lets_in(key) is None
            with psycopg.connect(tables) as connection:
                connection.execute("UPDATE api_keys SET revoked_at = NULL")
            assert await here.lets_in(key) == ANN

    asyncio.run(test())


def test_without_a_cache_every_request_asks(tables: str) -> None:
    async def test() -> None:
        async with house(tables, seconds=0) as here:
            key = await here.issue()
            assert await here.lets_in(key) == ANN
            await here.keys.revoke(key.id)
            assert await here.lets_in(key) is None

    asyncio.run(test())


def test_what_is_remembered_is_bounded(tables: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REMEMBERED <= 10_000
    monkeypatch.setattr("app.core.keys.doorkeeper.MAX_REMEMBERED", 2)

    async def test() -> None:
        async with house(tables) as here:
            made = [await here.issue(Tenant("ann", str(n))) for n in range(3)]
            for key in made:
                await here.lets_in(key)
                await here.keys.revoke(key.id)
            # the one that was seen first had to go
            assert [await here.lets_in(key) is not None for key in made] == [False, True, True]

    asyncio.run(test())


def test_a_key_is_revoked_once(tables: str) -> None:
    async def test() -> None:
        async with house(tables) as here:
            key = await here.issue()
            done = await asyncio.gather(*(here.keys.revoke(key.id) for _ in range(3)))
            assert sorted(one.changed for one in done if one is not None) == [False, False, True]
            assert len({one.key.revoked_at for one in done if one is not None}) == 1
            assert await here.keys.revoke(Key.new().id) is None

    asyncio.run(test())


def test_a_remembered_key_goes_on_while_postgresql_is_down(tmp_path: Path) -> None:
    with Postgres(tmp_path / "own").running() as server:
        url = server.new_database()
        prepare(url)

        async def test() -> None:
            async with house(url) as here:
                key, other = await here.issue(), await here.issue(BEN)
                assert await here.lets_in(key) == ANN
                await asyncio.to_thread(server.stop)
                assert await here.lets_in(key) == ANN
                with pytest.raises(DatabaseUnavailable):
                    await here.lets_in(other)
                here.clock.now = 10.0
                with pytest.raises(DatabaseUnavailable):
                    await here.lets_in(key)
                assert here.refused == []
                await asyncio.to_thread(server.start)
                await asyncio.sleep(1.1)  # for so long nobody asks it again
                assert await here.lets_in(key) == ANN
                assert await here.lets_in(other) == BEN

        asyncio.run(test())


@pytest.fixture
def app(tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> App:
    """The command line on the new database."""
    return app_in(tmp_path, {"DATABASE_URL": tables}, monkeypatch, capfd)


def admits(url: str, key: str) -> bool:
    async def test() -> bool:
        async with house(url) as here:
            return await here.lets_in(key) is not None

    return asyncio.run(test())


def test_operators_issue_list_and_revoke(app: App, tables: str) -> None:
    plain = app("keys", "issue", "--user", "Jörg Müller", "--project", "a b")
    key = plain.out.strip()
    assert plain.code == 0
    assert admits(tables, key)
    assert key not in plain.err
    terms = ("--user", "ann", "--project", "first", "--label", "CI", "--expires", "90d")
    made = app("keys", "issue", *terms, "--json").json
    assert made["changed"]
    assert admits(tables, made["key"])
    assert (made["user"], made["project"], made["label"], made["state"]) == ("ann", "first", "CI", "valid")
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < left <= timedelta(days=90)

    listed = app("keys", "list", "--json").json
    assert not listed["changed"]
    assert [(one["user"], one["state"]) for one in listed["keys"]] == [("Jörg Müller", "valid"), ("ann", "valid")]
    assert [one["id"] for one in app("keys", "list", "--user", "ann", "--json").json["keys"]] == [made["id"]]
    assert app("keys", "list", "--user", "ann", "--project", "other", "--json").json["keys"] == []

    revoked = app("keys", "revoke", made["id"], "--json").json
    assert (revoked["changed"], revoked["state"]) == (True, "revoked")
    assert not admits(tables, made["key"])
    again = app("keys", "revoke", made["id"], "--json")
    assert (again.code, again.json["changed"]) == (0, False)
    assert again.json["revoked_at"] == revoked["revoked_at"]
    assert f"was revoked before, at {revoked['revoked_at']}" in app("keys", "revoke", f"cs_{made['id']}").out

    table = app("keys", "list").out
    first, second, third = table.splitlines()
    assert first.split() == ["id", "user", "project", "state", "created", "expires", "revoked", "label"]
    assert "Jörg Müller  a b" in second
    assert third.startswith(f"{made['id']}  ann")
    assert third.endswith("  CI")
    assert " revoked " in third
    for whole in (key, made["key"]):
        secret = whole.split("_", 2)[2]
        assert secret not in table + str(listed) + str(revoked)


def test_a_leaked_key_is_revoked_by_itself_and_not_shown_again(app: App, tables: str) -> None:
    key = app("keys", "issue", "--user", "ann", "--project", "first").out.strip()
    ended = app("keys", "revoke", key)
    assert ended.code == 0
    assert key.split("_", 2)[2] not in ended.out + ended.err
    assert not admits(tables, key)


def test_an_unknown_key_is_told_in_one_line(app: App) -> None:
    ended = app("keys", "revoke", "0123456789abcdef")
    assert ended.code == 1
    assert "There is no key 0123456789abcdef." in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("issue", "--user", "a/b", "--project", "p"), "a user has no slash in it"),
        (("issue", "--user", "u", "--project", ""), "a project has 1 to 128 characters, not 0"),
        (("issue", "--user", "u", "--project", "p", "--expires", "soon"), "give 90d"),
        (("issue", "--user", "u", "--project", "p", "--expires", "1999-01-01"), "is past"),
        (("issue", "--user", "u", "--project", "p", "--label", "a\nb"), "cannot be printed"),
        (("issue", "--user", "u"), "--project"),
        (("list", "--project", "p"), "--user"),
        (("revoke", "all"), "16 hexadecimal digits"),
    ],
)
def test_wrong_use_is_told(app: App, tables: str, arguments: tuple[str, ...], says: str) -> None:
    ended = app("keys", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert rows(tables, "SELECT id FROM api_keys") == []


def test_a_database_without_tables_says_what_to_run(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = app_in(tmp_path, {"DATABASE_URL": database_url}, monkeypatch, capfd)
    ended = app("keys", "list")
    assert ended.code == 3
    assert "app database upgrade" in ended.complaint


def test_what_is_known_of_a_key_says_how_it_stands() -> None:
    now = datetime.now(UTC)
    past, future = now - timedelta(days=1), now + timedelta(days=1)

    def state(expires: datetime | None, revoked: datetime | None) -> str:
        return IssuedKey("x", ANN, "", past, expires, revoked).state(now)

    assert (state(None, None), state(future, None), state(past, None)) == ("valid", "valid", "expired")
    assert (state(now, None), state(None, past), state(past, past)) == ("expired", "revoked", "revoked")
