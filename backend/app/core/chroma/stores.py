"""The stores that the settings name: one shared by memory and retriever, or one for each directory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from app.config import Settings
from app.core.chroma.client import ChromaClient, http_client, persistent_client
from app.core.chroma.failures import Target
from app.core.chroma.lock import DirectoryLock
from app.core.chroma.session import Session
from app.core.chroma.store import ChromaStore
from app.core.errors import ChromaRefusedToken, StartupError


class ChromaStores:
    """`memory` and `rag`, which are the same store in http mode and where both directories are one.

    Nothing is opened before `open`, and no connection is made before the first use of a store.
    """

    def __init__(self, settings: Settings) -> None:
        self._locks: list[DirectoryLock] = []
        if settings.chroma_mode == "http":
            self.memory = self.rag = _http_store(settings)
            return
        memory = settings.chroma_db_path.resolve()
        rag = settings.chroma_persist_dir.resolve()
        self._locks.append(DirectoryLock(memory, "CHROMA_DB_PATH"))
        self.memory = _persistent_store(settings, memory)
        if rag == memory:
            self.rag = self.memory
            return
        self._locks.append(DirectoryLock(rag, "CHROMA_PERSIST_DIR"))
        self.rag = _persistent_store(settings, rag)

    def open(self) -> None:
        """Take the directories in persistent mode; StartupError when one is not to be had."""
        try:
            for lock in self._locks:
                lock.acquire()
        except StartupError:
            self._release()
            raise

    def close(self) -> None:
        """Close what is open, then let go of the directories."""
        for store in {self.memory, self.rag}:
            store.session.close()
        self._release()

    def _release(self) -> None:
        for lock in self._locks:
            lock.release()


def _http_store(settings: Settings) -> ChromaStore:
    scheme = "https" if settings.chroma_ssl else "http"
    target = Target(f"Chroma at {scheme}://{settings.chroma_host}:{settings.chroma_port}", remote=True)

    def connect() -> ChromaClient:
        try:
            settings.token()
        except ValueError as error:
            raise ChromaRefusedToken(f"There is no token for {target}: {error}.") from None
        return http_client(settings)

    return ChromaStore(Session(connect, target, settings.token), settings.chroma_resolve_seconds)


def _persistent_store(settings: Settings, directory: Path) -> ChromaStore:
    target = Target(f"The Chroma directory {directory}", remote=False)
    return ChromaStore(
        Session(partial(persistent_client, settings, directory), target), settings.chroma_resolve_seconds
    )
