"""Real servers, shared where a test leaves them as they were; databases and folders of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Generic, TypeVar

import pytest

pytest.register_assert_rewrite("support.databases", "support.rollbacks", "support.store_contract")

from support.command import Chromactl, clean_environment, in_process  # noqa: E402 (after the line above)
from support.databases import Database, new_database, same_database  # noqa: E402
from support.records import Made, menagerie  # noqa: E402
from support.rollbacks import NASTY, PETS, Place  # noqa: E402
from support.servers import Server, TokenHeader, Version, chroma_server  # noqa: E402

LEGACY_TOKEN = "legacy-s3cret-token"
OLDER: dict[Version, tuple[str | None, TokenHeader]] = {
    "0.4.24": ("older-s3cret-token", "X-Chroma-Token"),
    "0.5.23": ("old-s3cret-token", "Authorization"),
    "1.0.21": (None, "Authorization"),
}

T = TypeVar("T")


class OnDemand(dict[Version, T], Generic[T]):
    """Something of every version, made when it is first asked for."""

    def __init__(self, make: Callable[[Version], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, version: Version) -> T:
        self[version] = made = self._make(version)
        return made


@pytest.fixture(scope="session")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Chroma 1.5.9. Its default database holds the menagerie and is only ever read."""
    with chroma_server(tmp_path_factory.mktemp("modern") / "data") as server:
        Database(server).put(*menagerie(lists=True))
        yield server


@pytest.fixture(scope="session")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Chroma 0.6.3 behind a token. Its default database holds the menagerie and is only ever read."""
    with chroma_server(tmp_path_factory.mktemp("legacy") / "data", version="0.6.3", token=LEGACY_TOKEN) as server:
        Database(server).put(*menagerie(lists=False))
        yield server


@pytest.fixture(scope="session")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Chroma 1.5.9 that data is brought to, each test into a database of its own."""
    with chroma_server(tmp_path_factory.mktemp("receiving") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def servers(
    modern: Server, legacy: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[Version, Server]]:
    """A server of every version. Their default databases hold the menagerie and are only ever read."""
    with ExitStack() as stack:

        def start(version: Version) -> Server:
            token, header = OLDER[version]
            path = tmp_path_factory.mktemp("servers") / version
            server = stack.enter_context(chroma_server(path, version=version, token=token, header=header))
            Database(server).put(*menagerie(lists=False))
            return server

        started = OnDemand(start)
        started.update({"1.5.9": modern, "0.6.3": legacy})
        yield started


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Version, Path]:
    """Directories that a server of each version left, holding the menagerie."""
    folder = tmp_path_factory.mktemp("directories")

    def fill(version: Version) -> Path:
        with chroma_server(folder / version, version=version) as server:
            Database(server).put(*menagerie(lists=version == "1.5.9"))
        return folder / version

    return OnDemand(fill)


@pytest.fixture
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with clean_environment(tmp_path):
        yield


@pytest.fixture
def chromactl(_own_folder: None, capfd: pytest.CaptureFixture[str]) -> Chromactl:
    """The command line, in a folder of the test's own."""
    return in_process(capfd)


@pytest.fixture
def legacy_token(_own_folder: None, tmp_path: Path) -> Path:
    """A file with the token of the 0.6.3 server."""
    path = tmp_path / "legacy.token"
    path.write_text(f"{LEGACY_TOKEN}\n")
    return path


@pytest.fixture
def pair(modern: Server, receiving: Server) -> tuple[Database, Database]:
    """Two empty databases of one name, on two servers."""
    source = new_database(modern)
    return source, same_database(receiving, source.name)


Fill = Callable[..., tuple[Database, Database]]


@pytest.fixture
def filled(pair: tuple[Database, Database]) -> Fill:
    """The pair, with these collections in the first."""

    def fill(*collections: Made) -> tuple[Database, Database]:
        pair[0].put(*collections)
        return pair

    return fill


@pytest.fixture
def place(pair: tuple[Database, Database], chromactl: Chromactl) -> Place:
    """A pair whose first holds what rollbacks are about."""
    pair[0].put(PETS, NASTY)
    return Place(pair, chromactl)
