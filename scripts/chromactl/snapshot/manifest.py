"""The manifest of a snapshot: what collections it holds, in which shards, with which digests."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from chromactl import __version__
from chromactl.errors import NotChromaError
from chromactl.files import write_atomically
from chromactl.snapshot.shard import Shard
from chromactl.stores.base import CollectionSpec

NAME = "manifest.json"
FORMAT = "chroma-stack-snapshot"
VERSION = 1


@dataclass(frozen=True, slots=True)
class SnapshotCollection:
    """One collection of a snapshot."""

    spec: CollectionSpec
    count: int
    digest: str
    shards: list[Shard]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot. `source` is the database it was taken of; `created` is in UTC, ISO 8601.

    A `partial` one holds some records of its collections only: what a delta run was about to change.
    """

    source: str
    collections: list[SnapshotCollection]
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    tool: str = f"chromactl {__version__}"
    partial: bool = False

    def write(self, folder: Path) -> None:
        """Write the manifest; a folder without one is no snapshot, so this is the last thing written."""
        body = {
            "format": FORMAT,
            "version": VERSION,
            "created": self.created,
            "tool": self.tool,
            "source": self.source,
            "partial": self.partial,
            "collections": [
                {**asdict(entry.spec), "count": entry.count, "digest": entry.digest}
                | {"shards": [asdict(shard) for shard in entry.shards]}
                for entry in self.collections
            ],
        }
        write_atomically(folder / NAME, orjson.dumps(body, option=orjson.OPT_INDENT_2))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the snapshot in this folder.

    Raises:
        NotChromaError: there is none, or it is of another format or a newer version.

    """
    path = folder / NAME
    try:
        body: dict[str, Any] = orjson.loads(path.read_bytes())
        if body["format"] != FORMAT or body["version"] != VERSION:
            raise NotChromaError(
                f"{path}: format {body['format']!r} version {body['version']!r} is not known here; "
                f"this chromactl reads {FORMAT} version {VERSION}"
            )
        return Manifest(
            source=body["source"],
            collections=[_collection(entry) for entry in body["collections"]],
            created=body["created"],
            tool=body["tool"],
            partial=body.get("partial", False),
        )
    except FileNotFoundError as error:
        raise NotChromaError(f"{folder}: not a snapshot (no {NAME}); give the folder that holds one") from error
    except OSError as error:
        raise NotChromaError(f"{path}: cannot be read ({error.strerror})") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise NotChromaError(f"{path}: not a snapshot's manifest ({error!r}); give another snapshot") from error


def _collection(entry: dict[str, Any]) -> SnapshotCollection:
    return SnapshotCollection(
        spec=CollectionSpec(
            name=entry["name"],
            space=entry["space"],
            metadata=entry["metadata"],
            hnsw=entry["hnsw"],
            embedding_function=entry["embedding_function"],
            dimension=entry["dimension"],
            schema=entry.get("schema"),
        ),
        count=entry["count"],
        digest=entry["digest"],
        shards=[Shard(**shard) for shard in entry["shards"]],
    )
