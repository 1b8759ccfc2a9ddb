"""The PostgreSQL that a checkout brings along: one for all who use it, ended by the last, and closed to others."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL

from app.core.database.embedded import EmbeddedPostgres
from app.core.errors import StartupError
from support.own_postgres import none_left_below, ordinary, servers_below, user_of
from support.postgres import Postgres
from support.process import wait_until_gone


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """For a server of the test's own; none is left when it ends."""
    with none_left_below(tmp_path):
        yield tmp_path / "data" / "postgres"


def marks(url: URL) -> set[str]:
    """What users wrote."""
    with psycopg.connect(url.set(drivername="postgresql").render_as_string()) as connection:
        return {mark for (mark,) in connection.execute("SELECT mark FROM marks")}


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in (directory, *directory.iterdir())}


def listening(pid: int) -> list[str]:
    """The network sockets of the process."""
    rows = [row.split() for name in ("tcp", "tcp6") for row in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    own = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    return [row[1] for row in rows if f"socket:[{row[9]}]" in own]


def test_all_share_one_server_and_the_last_one_ends_it(directory: Path) -> None:
    first, second = EmbeddedPostgres(directory), EmbeddedPostgres(directory)
    first.start()
    (pid,) = servers_below(directory)
    with user_of(directory, "a"):
        url = second.start()
        assert marks(url) == {"a"}
        first.stop()
    assert servers_below(directory) == [pid]
    second.stop()
    second.stop()
    assert servers_below(directory) == []
    assert marks(first.start()) == {"a"}
    first.stop()


def test_many_that_start_it_at_once_get_one(directory: Path) -> None:
    names = {"a", "b", "c", "d"}
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        list(pool.map(stack.enter_context, [user_of(directory, name) for name in names]))
        assert len(servers_below(directory)) == 1
    assert servers_below(directory) == []
    own = EmbeddedPostgres(directory)
    assert marks(own.start()) == names
    own.stop()


def test_one_that_a_killed_process_left_is_joined_and_then_ended(directory: Path) -> None:
    with user_of(directory, "killed") as user:
        user.kill()
    (pid,) = servers_below(directory)
    own = EmbeddedPostgres(directory)
    assert marks(own.start()) == {"killed"}
    assert servers_below(directory) == [pid]
    own.stop()
    assert servers_below(directory) == []


def test_a_server_that_was_killed_is_started_again_with_all_it_had(directory: Path) -> None:
    with user_of(directory, "before"):
        (pid,) = servers_below(directory)
        os.kill(pid, signal.SIGKILL)
        wait_until_gone([pid])
        with user_of(directory, "after"):
            assert servers_below(directory) != [pid]
    own = EmbeddedPostgres(directory)
    assert marks(own.start()) == {"before", "after"}
    own.stop()


def test_nobody_else_gets_in(directory: Path) -> None:
    own = EmbeddedPostgres(directory)
    own.start()
    try:
        files = dict.fromkeys(("lock", "users", "server", "log"), 0o600)
        assert modes(directory) == {"postgres": 0o700, "cluster": 0o700, **files}
        assert stat.S_IMODE((directory / "cluster/.s.PGSQL.5432").lstat().st_mode) == 0o700
        (pid,) = servers_below(directory)
        assert listening(pid) == []
    finally:
        own.stop()


def test_it_gets_nothing_of_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMA_AUTH_TOKEN", "s3cret")
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGDATA", "/nowhere")
    own = EmbeddedPostgres(directory)
    own.start()
    try:
        (pid,) = servers_below(directory)
        given = Path(f"/proc/{pid}/environ").read_bytes()
        assert {entry.split(b"=")[0] for entry in given.split(b"\0") if entry} == {b"PATH", b"LC_ALL"}
    finally:
        own.stop()


def test_its_log_tells_of_errors_but_quotes_no_row(directory: Path) -> None:
    own = EmbeddedPostgres(directory)
    url = own.start().set(drivername="postgresql").render_as_string()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE short (words text CHECK (length(words) < 3))")
        for statement in ("INSERT INTO short VALUES (%s)", "INSERT INTO short VALUES ('a m4rker of ours')"):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(statement, ["a m4rker of ours"] if "%s" in statement else None)
    own.stop()
    logged = (directory / "log").read_text()
    assert "violates check constraint" in logged
    assert "m4rker" not in logged


def test_a_path_that_is_too_long_for_a_socket(directory: Path) -> None:
    far = directory / ("x" * 90) / ("y" * 90)
    own = EmbeddedPostgres(far)
    with user_of(far, "far away"):
        assert marks(own.start()) == {"far away"}
        own.stop()
    assert marks(own.start()) == {"far away"}
    own.stop()


def test_an_ordinary_user_has_one_too(tmp_path: Path, directory: Path) -> None:
    before = ordinary(tmp_path)
    with user_of(directory, "ordinary", before) as user:
        (pid,) = servers_below(directory)
        assert Path(f"/proc/{pid}").stat().st_uid == Path(f"/proc/{user.pid}").stat().st_uid
        # whoever of both comes second joins; what root makes there does not lock the other one out
        with user_of(directory, "we"):
            assert servers_below(directory) == [pid]
    with user_of(directory, "we again"):
        pass
    with user_of(directory, "ordinary again", before):
        pass
    own = EmbeddedPostgres(directory)
    assert marks(own.start()) == {"ordinary", "we", "we again", "ordinary again"}
    own.stop()


def test_what_was_not_finished_is_made_anew(directory: Path) -> None:
    (directory / "cluster.new").mkdir(parents=True)
    directory.chmod(0o700)
    (directory / "cluster.new" / "PG_VERSION").write_text("18\n")
    with user_of(directory, "a"):
        assert not (directory / "cluster.new").exists()


def test_the_number_of_another_server_is_left_alone(directory: Path, postgres: Postgres) -> None:
    """As after a restart of the machine: process numbers begin anew, and the file still names one."""
    own = EmbeddedPostgres(directory)
    own.start()
    own.stop()
    (directory / "cluster/postmaster.pid").write_text(
        f"{postgres.pid}\n{directory}/cluster\n1\n5432\n.\n\n1 1\nready\n"
    )
    own.start()
    assert servers_below(directory) != [postgres.pid]
    own.stop()
    psycopg.connect(postgres.url()).close()


def test_a_large_log_is_put_aside(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.database.embedded.MAX_LOG_BYTES", 1)
    own = EmbeddedPostgres(directory)
    for _ in range(2):
        own.start()
        own.stop()
    assert "shut down" in (directory / "log.1").read_text()
    assert (directory / "log").read_text().count("starting PostgreSQL") == 1


def data_directory(directory: Path) -> None:
    (directory / "PG_VERSION").write_text("18\n")


def older(directory: Path) -> None:
    (directory / "cluster").mkdir(mode=0o700)
    (directory / "cluster/PG_VERSION").write_text("17\n")


def broken(directory: Path) -> None:
    (directory / "cluster").mkdir(mode=0o700)
    (directory / "cluster/PG_VERSION").write_text("18\n")


def link(directory: Path) -> None:
    (directory / "lock").symlink_to(directory / "elsewhere")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (data_directory, "is a PostgreSQL data directory itself"),
        (older, "was made by PostgreSQL 17, this one is 18"),
        (broken, "postgresql.conf"),
        (link, "symbolic links"),
    ],
)
def test_what_cannot_be_started_is_told_in_one_line(directory: Path, spoil: Callable[[Path], None], says: str) -> None:
    directory.mkdir(parents=True, mode=0o700)
    spoil(directory)
    own = EmbeddedPostgres(directory)
    with pytest.raises(StartupError) as caught:
        own.start()
    line = str(caught.value)
    assert says in line
    assert str(directory) in line
    assert "\n" not in line


def test_a_path_of_no_use_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match=r"DATABASE_PATH=.*Not a directory"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()


def test_a_folder_that_others_may_enter_is_none_for_root(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    own = EmbeddedPostgres(directory)
    if os.geteuid() != 0:  # its own files are closed to others all the same
        own.start()
        own.stop()
        assert modes(directory)["cluster"] == 0o700
        return
    with pytest.raises(StartupError, match="chmod 700"):
        own.start()
    # why: the server runs as nobody, and nobody else who does may come near its files
    directory.chmod(0o700)
    own.start()
    try:
        look = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "ls", str(directory / "cluster")]
        assert "Permission denied" in subprocess.run(look, capture_output=True, text=True, check=False).stderr  # noqa: S603
    finally:
        own.stop()
