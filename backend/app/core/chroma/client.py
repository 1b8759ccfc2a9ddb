"""The one client factory: where Chroma is, and how to talk to it, is decided here and nowhere else.

It makes chromadb's ServerAPI, the layer that `chromadb.HttpClient` and `PersistentClient` wrap, for two
reasons. The wrappers talk to the server inside their constructors, before anybody can give their httpx
session a deadline (it has none), and leave a second session behind that cannot be reached; and
nothing below them builds an embedding function from what the server has stored (CVE-2026-45829).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast
from uuid import UUID

import numpy as np
from chromadb.api import ServerAPI
from chromadb.api.collection_configuration import CreateHNSWConfiguration
from chromadb.api.fastapi import FastAPI
from chromadb.api.models.Collection import Collection
from chromadb.api.rust import RustBindingsAPI
from chromadb.config import Settings as ChromaSettings
from chromadb.config import System
from chromadb.types import Collection as CollectionModel
from numpy import float32
from numpy.typing import NDArray
from pydantic import SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from app.config import Settings
from app.core.chroma import wire
from app.core.chroma.deadline import set_deadline
from app.core.chroma.quota import Quota

_TOKEN_PROVIDER = "chromadb.auth.token_authn.TokenAuthClientProvider"  # noqa: S105 (a class, no secret)


class _ClientSettings(ChromaSettings):
    """Chroma's settings from our arguments only: by themselves they would read environment and .env too."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True)
class ChromaClient:
    """Chroma, seen from one tenant and database. Its methods raise whatever chromadb raises."""

    system: System
    api: ServerAPI
    tenant: str
    database: str
    token: SecretStr | None = None
    quota: Quota = field(default_factory=Quota)

    def check_database(self) -> None:
        """Raise when tenant or database do not exist: listing them would merely be empty."""
        self.api.get_database(self.database, tenant=self.tenant)

    def collections(self) -> list[CollectionModel]:
        """Every collection, as a description: id, name, metadata, configuration, dimension."""
        found: dict[UUID, CollectionModel] = {}
        while True:
            # without a limit first; a server may give fewer than there are, and no more in one page
            number = len(found)
            page = self.api.list_collections(number or None, number or None, tenant=self.tenant, database=self.database)
            found.update((one.id, one) for one in page)
            if len(found) == number:
                return list(found.values())

    def get(self, name: str) -> CollectionModel:
        """The collection that has this name now."""
        return self.api.get_collection(name, tenant=self.tenant, database=self.database)

    def get_or_create(self, name: str) -> CollectionModel:
        """The same; made when there is none, with the cosine metric and no embedding function."""
        # the metric as metadata: 0.5 and 0.6 answer a configuration with 500, later servers take either
        return self.api.create_collection(
            name,
            metadata={"hnsw:space": "cosine"},
            get_or_create=True,
            tenant=self.tenant,
            database=self.database,
        )

    def create(self, name: str, hnsw: Mapping[str, Any], metadata: Mapping[str, Any]) -> CollectionModel:
        """A new collection of the cosine metric, with these settings of its index where they say more than that."""
        settings = cast(CreateHNSWConfiguration, {**hnsw, "space": "cosine"})
        return self.api.create_collection(
            name,
            metadata={**metadata, "hnsw:space": "cosine"},
            configuration={"hnsw": settings} if hnsw else None,
            tenant=self.tenant,
            database=self.database,
        )

    def rename(self, collection: CollectionModel, name: str) -> None:
        """Give the collection another name, which nothing may have; its id stays."""
        self.api._modify(collection.id, new_name=name, tenant=self.tenant, database=self.database)

    def drop(self, name: str) -> None:
        """Remove the collection. List-valued metadata of its records stays behind, so remove these first."""
        self.api.delete_collection(name, tenant=self.tenant, database=self.database)

    def add(
        self,
        id_: UUID,
        ids: Sequence[str],
        vectors: NDArray[float32],
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add records to the collection of this id; those that are there already stay as they are."""
        self._put(id_, "add", ids, vectors, documents, metadatas)

    def upsert(
        self,
        id_: UUID,
        ids: Sequence[str],
        vectors: NDArray[float32],
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> None:
        """Add or change records; vectors: float32[n, dim]. A null in metadata takes the key away."""
        self._put(id_, "upsert", ids, vectors, documents, metadatas)

    def delete(self, collection: CollectionModel, ids: Sequence[str]) -> None:
        """Remove these records."""
        bound = self.bind(collection)
        self.quota.remove(ids, lambda page: bound.delete(ids=page))

    def read(self, collection: CollectionModel, ids: Sequence[str]) -> wire.Columns:
        """Those of these records that the collection holds, whole and in no order."""
        return wire.joined(self.quota.read(ids, partial(self._page, collection)))

    def metadatas(self, collection: CollectionModel, ids: Sequence[str]) -> dict[str, Mapping[str, Any] | None]:
        """The metadata of those of these records that the collection holds, by id."""
        bound = self.bind(collection)
        found: dict[str, Mapping[str, Any] | None] = {}
        for page in self.quota.read(ids, lambda some: bound.get(ids=some, limit=len(some), include=["metadatas"])):
            found.update(zip(page["ids"], page["metadatas"] or [], strict=True))
        return found

    def ids(self, collection: CollectionModel) -> list[str]:
        """The ids of all records: as of one moment, if the server gives them in one answer."""
        bound = self.bind(collection)
        found = bound.get(include=[])["ids"]
        if len(found) >= (there := bound.count()):
            return list(found)
        # short without a word: by a limit that nobody named, or because records were just written
        ids = dict.fromkeys(found)
        for offset in (len(found), 0):  # what a delete shifted to a page that had been read is found the second time
            while page := bound.get(limit=len(found) or 1, offset=offset, include=[])["ids"]:
                ids.update(dict.fromkeys(page))
                offset += len(page)
            if len(ids) >= there:
                break
        return list(ids)

    def version(self) -> str:
        """Chroma's version; 1.0.0 of every server since."""
        return str(self.api.get_version())

    def heartbeat(self) -> int:
        """Nanoseconds since 1970 by Chroma's clock."""
        return self.api.heartbeat()

    def bind(self, model: CollectionModel) -> Collection:
        """The collection, ready to be asked. It is named by its id: a new name changes nothing."""
        # embedding_function=None: vectors come from our own provider, never from server configuration
        return Collection(client=self.api, model=model, embedding_function=None)

    def _put(
        self,
        id_: UUID,
        verb: Literal["add", "upsert"],
        ids: Sequence[str],
        vectors: NDArray[float32],
        documents: Sequence[str],
        metadatas: Sequence[Mapping[str, Any]],
    ) -> None:
        def send(part: slice) -> None:
            if isinstance(self.api, FastAPI):
                wire.put(self.api, self._path(id_, verb), ids[part], vectors[part], documents[part], metadatas[part])
                return
            # Collection.upsert would not let a null pass, though server and directory take it
            rows, texts = list(metadatas[part]), list(documents[part])
            of = {"tenant": self.tenant, "database": self.database}
            if verb == "add":
                self.api._add(list(ids[part]), id_, list(vectors[part]), rows, texts, None, **of)
            else:
                self.api._upsert(id_, list(ids[part]), list(vectors[part]), rows, texts, None, **of)

        self.quota.write(documents, send)

    def _page(self, collection: CollectionModel, ids: Sequence[str]) -> wire.Columns:
        if isinstance(self.api, FastAPI):
            return wire.get(self.api, self._path(collection.id, "get"), ids)
        found = self.bind(collection).get(ids=list(ids), include=["embeddings", "documents", "metadatas"])
        vectors = np.asarray(found["embeddings"], float32).reshape(len(found["ids"]), -1)
        return wire.Columns(found["ids"], vectors, found["documents"] or [], found["metadatas"] or [])

    def _path(self, id_: UUID, verb: str) -> str:
        return f"/tenants/{self.tenant}/databases/{self.database}/collections/{id_}/{verb}"

    def close(self) -> None:
        """End the session, or close the directory."""
        self.system.stop()
        if isinstance(self.api, FastAPI):
            self.api._session.close()


def http_client(settings: Settings) -> ChromaClient:
    """A client of the configured server. Nothing is sent yet.

    Raises ValueError when the token file cannot be read.
    """
    token = settings.token()
    config = _ClientSettings(
        chroma_api_impl="chromadb.api.fastapi.FastAPI",
        chroma_server_host=settings.chroma_host,
        chroma_server_http_port=settings.chroma_port,
        chroma_server_ssl_enabled=settings.chroma_ssl,
        chroma_server_headers=None,
        chroma_client_auth_provider=_TOKEN_PROVIDER if token else None,
        chroma_client_auth_credentials=token.get_secret_value() if token else None,
        chroma_auth_token_transport_header=settings.chroma_auth_token_transport_header,
        chroma_http_max_connections=settings.chroma_threads + 2,
        anonymized_telemetry=False,
    )
    system = System(config)
    api = system.instance(FastAPI)
    set_deadline(api._session, settings.chroma_timeout_seconds)
    system.start()
    return ChromaClient(system, api, settings.chroma_tenant, settings.chroma_database, token)


def persistent_client(settings: Settings, directory: Path) -> ChromaClient:
    """A client that owns the directory. The caller holds its DirectoryLock."""
    config = _ClientSettings(
        chroma_api_impl="chromadb.api.rust.RustBindingsAPI",
        is_persistent=True,
        persist_directory=str(directory),
        anonymized_telemetry=False,
    )
    system = System(config)
    api = system.instance(RustBindingsAPI)
    system.start()
    return ChromaClient(system, api, settings.chroma_tenant, settings.chroma_database)
