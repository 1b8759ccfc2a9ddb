"""The limits that Chroma Cloud sets, before a real server: what is over them is refused in its words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from support.forwarder import WRITES, Guard


@dataclass(frozen=True, slots=True)
class Limits:
    """Records a request, and bytes; the documented defaults."""

    records: int = 300
    results: int = 300
    document: int = 16_384
    id: int = 128
    uri: int = 256
    key: int = 36
    keys: int = 32
    value: int = 8_182
    told: bool = True
    """Whether a refusal names the quota and its numbers."""


def quotas(limits: Limits) -> Guard:
    """A guard for a forwarder. Its pre-flight names 1,000 records a batch, which is wrong, as it is there."""

    def guard(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        verb = path.partition("?")[0].rsplit("/", 1)[-1]
        if verb == "pre-flight-checks":
            return 200, {"max_batch_size": 1000, "supports_base64_encoding": True}
        over: Iterator[tuple[str, int, int]] = iter(())
        if verb == "get":
            # Without a limit there is no refusal, only fewer results.
            if body.get("limit") is None:
                body["limit"] = limits.results
            over = iter([("Limit value", body["limit"], limits.results)])
        elif verb == "delete":
            over = iter([("Number of records", len(body.get("ids", ())), limits.records)])
        elif path.endswith(WRITES):
            over = _of_records(limits, body)
        for name, usage, limit in over:
            if usage > limit:
                words = (
                    f"Quota exceeded: '{name}' exceeded quota limit for action '{verb.capitalize()}': "
                    f"current usage of {usage} exceeds limit of {limit}"
                )
                return 422, {"error": "ChromaError", "message": words if limits.told else "Quota exceeded"}
        return None

    return guard


def _of_records(limits: Limits, body: dict[str, Any]) -> Iterator[tuple[str, int, int]]:
    yield "Number of records", len(body["ids"]), limits.records
    for record in body["ids"]:
        yield "ID size (bytes)", len(record.encode()), limits.id
    for document in body.get("documents") or ():
        yield "Document size (bytes)", len((document or "").encode()), limits.document
    for uri in body.get("uris") or ():
        yield "URI size (bytes)", len((uri or "").encode()), limits.uri
    for metadata in body.get("metadatas") or ():
        yield "Number of metadata dictionary keys", len(metadata or {}), limits.keys
        for key, value in (metadata or {}).items():
            yield "Size of metadata dictionary key (bytes)", len(key.encode()), limits.key
            if isinstance(value, str):
                yield "Size of metadata dictionary value (bytes)", len(value.encode()), limits.value
