"""A collection as servers describe it in JSON, of every version, and as 1.x wants it described."""

from __future__ import annotations

from typing import Any

import orjson

from chromactl.stores.base import CollectionSpec
from chromactl.stores.index_switches import own_schema

# Collection metadata was where 0.4 to 0.6 kept the index settings; 1.x still reads them there.
_FROM_METADATA = {
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:M": "max_neighbors",
    "hnsw:resize_factor": "resize_factor",
    "hnsw:sync_threshold": "sync_threshold",
}
_SETTINGS = ("ef_construction", "ef_search", "max_neighbors", "resize_factor", "sync_threshold")


def read(entry: dict[str, Any]) -> CollectionSpec:
    """The spec in a server's collection JSON.

    Metadata comes before configuration: 0.5 and 0.6, and 1.x after an in-place upgrade, say "l2" in the
    configuration of collections that really are cosine by their metadata.
    """
    metadata = entry.get("metadata") or {}
    configuration = entry.get("configuration_json") or {}
    index = configuration.get("hnsw") or configuration.get("hnsw_configuration") or {}
    hnsw = {key: index[key] for key in _SETTINGS if index.get(key) is not None}
    if "M" in index:
        hnsw["max_neighbors"] = index["M"]
    hnsw |= {ours: metadata[theirs] for theirs, ours in _FROM_METADATA.items() if theirs in metadata}
    return CollectionSpec(
        name=entry["name"],
        space=str(metadata.get("hnsw:space") or index.get("space") or "l2"),
        metadata=metadata or None,
        hnsw=hnsw,
        embedding_function=configuration.get("embedding_function"),
        dimension=entry.get("dimension"),
        schema=own_schema(entry.get("schema")),
    )


def create(spec: CollectionSpec, name: str, *, modern: bool) -> dict[str, Any]:
    """The body that makes this collection under the given name.

    1.x (`modern`) takes a configuration, and the embedding function in it as the data it is; older servers
    read the metric from the metadata. Empty metadata must be null (1.x answers 400 otherwise). A schema takes the
    place of the configuration: 1.5 refuses both together.
    """
    if not modern:
        return {"name": name, "metadata": {**(spec.metadata or {}), "hnsw:space": spec.space}, "get_or_create": False}
    body = {"name": name, "metadata": spec.metadata or None, "get_or_create": False}
    if spec.schema is not None:
        return {**body, "schema": _with_space(spec.schema, spec.space)}
    index = {"space": spec.space, **spec.hnsw}
    return {**body, "configuration": {"hnsw": index, "embedding_function": spec.embedding_function}}


def _with_space(schema: dict[str, Any], space: str) -> dict[str, Any]:
    """The schema with this metric wherever it names one."""
    changed: dict[str, Any] = orjson.loads(orjson.dumps(schema))
    for index in (changed.get("defaults", {}), changed.get("keys", {}).get("#embedding", {})):
        if config := index.get("float_list", {}).get("vector_index", {}).get("config"):
            config["space"] = space
    return changed
