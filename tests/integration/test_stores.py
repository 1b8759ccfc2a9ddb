"""The store contract on real servers and directories."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import ClassVar

import pytest

from chromactl.options import access
from chromactl.stores.base import Source
from chromactl.stores.directory import DirectoryStore
from chromactl.stores.opening import open_source, open_target
from support.databases import Database, assert_holds, new_database
from support.records import Made, batch_of, nasty, spec_of
from support.servers import Server, chroma_server
from support.store_contract import RUN, Place, StoreContract


def place_on(server: Server, token: Path | None) -> Iterator[Place]:
    database = new_database(server)
    entry = access(server.url, "target", token, "default_tenant", database.name)
    with closing(open_target(entry, "")) as target, ExitStack() as stack:

        def again() -> Source:
            return stack.enter_context(closing(open_source(entry)))

        yield Place(target, again)


class TestModernServer(StoreContract):
    indexed: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    @pytest.fixture
    def place(self, receiving: Server) -> Iterator[Place]:
        yield from place_on(receiving, None)


class TestLegacyServer(StoreContract):
    lists: ClassVar[bool] = False
    indexed: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    @pytest.fixture
    def place(self, legacy: Server, legacy_token: Path) -> Iterator[Place]:
        yield from place_on(legacy, legacy_token)


class TestDirectory(StoreContract):
    indexed: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        entry = access(f"path:{tmp_path}/data", "target", None, "default_tenant", "default_database")
        with closing(open_target(entry, "")) as target:
            assert isinstance(target, DirectoryStore)
            yield Place(target, lambda: target)


def test_a_directory_is_whole_after_it_was_closed(tmp_path: Path) -> None:
    made = Made("pets", "cosine", nasty(lists=True))
    entry = access(f"path:{tmp_path}/data", "target", None, "default_tenant", "default_database")
    with closing(open_target(entry, "")) as target:
        staged = target.stage(spec_of(made), RUN)
        target.write(staged, batch_of(made.records))
        target.swap([staged], RUN)
    with chroma_server(tmp_path / "data") as server:
        assert_holds(Database(server).records("pets"), made.records, "cosine")
