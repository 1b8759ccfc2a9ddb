"""Real servers, shared where a test leaves them as they were; databases and folders of a test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support.databases", "support.store_contract")

from support.command import Chromactl, clean_environment, in_process  # noqa: E402 (after the line above)
from support.databases import Database, new_database, same_database  # noqa: E402
from support.records import Made, menagerie  # noqa: E402
from support.servers import Server, chroma_server  # noqa: E402

LEGACY_TOKEN = "legacy-s3cret-token"


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
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories that a server of either version left, holding the menagerie."""
    folder = tmp_path_factory.mktemp("directories")
    for version in ("1.5.9", "0.6.3"):
        with chroma_server(folder / version, version=version) as server:
            Database(server).put(*menagerie(lists=version == "1.5.9"))
    return {"1.5.9": folder / "1.5.9", "0.6.3": folder / "0.6.3"}


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
