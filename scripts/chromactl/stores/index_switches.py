"""The schema of a 1.5 collection, as far as it says which indexes are switched on.

A server lists a key in it once the key was written, with the default of its type: that says nothing, and is left out.
The vector index is left out too: metric and settings are in the collection's configuration.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_VECTORS = "float_list"

# The schema of a collection that was made without one (1.5.9), but for its vector index.
_PLAIN: Schema = {
    "defaults": {
        "string": {
            "fts_index": {"enabled": False, "config": {}},
            "string_inverted_index": {"enabled": True, "config": {}},
        },
        "sparse_vector": {
            "sparse_vector_index": {
                "enabled": False,
                "config": {"embedding_function": {"type": "unknown"}, "bm25": False},
            }
        },
        "int": {"int_inverted_index": {"enabled": True, "config": {}}},
        "float": {"float_inverted_index": {"enabled": True, "config": {}}},
        "bool": {"bool_inverted_index": {"enabled": True, "config": {}}},
    },
    "keys": {
        "#document": {
            "string": {
                "fts_index": {"enabled": True, "config": {}},
                "string_inverted_index": {"enabled": False, "config": {}},
            }
        }
    },
}


def own_schema(schema: Schema | None) -> Schema | None:
    """The schema, if it says more than the configuration does."""
    return None if schema is None or _bare(schema) == _PLAIN else schema


def _bare(schema: Schema) -> Schema:
    defaults = schema.get("defaults", {})
    return {
        **schema,
        "defaults": {kind: index for kind, index in defaults.items() if kind != _VECTORS},
        "keys": {
            key: kinds
            for key, kinds in schema.get("keys", {}).items()
            if key != "#embedding" and any(index != defaults.get(kind) for kind, index in kinds.items())
        },
    }


def differing(expected: Schema | None, actual: Schema | None) -> list[tuple[str, str, str]]:
    """What two schemas switch otherwise: the index, and how it is on either side. No schema is that of 1.5.9."""
    sides = [_bare(schema or _PLAIN) for schema in (expected, actual)]
    places = dict.fromkeys(place for side in sides for place in _places(side))
    found: list[tuple[str, str, str]] = []
    for key, kind, index in places:
        before, now = (_entry(side, key, kind, index) for side in sides)
        if before != now:
            found.append((f"{index} of {key or f'every {kind}'}", _words(before), _words(now)))
    for name in dict.fromkeys(name for side in sides for name in side if name not in _PLAIN):
        one, other = (side.get(name) for side in sides)
        if one != other:
            found.append((name, str(one), str(other)))
    return found


def _places(schema: Schema) -> list[tuple[str, str, str]]:
    levels = {"": schema["defaults"], **schema["keys"]}
    return [
        (key, kind, index)
        for key, kinds in levels.items()
        for kind, indexes in kinds.items()
        for index in indexes or ()
    ]


def _entry(schema: Schema, key: str, kind: str, index: str) -> Any:
    of_key = (schema["keys"].get(key) or {}).get(kind) or {}
    return of_key.get(index, (schema["defaults"].get(kind) or {}).get(index))


def _words(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "none" if entry is None else str(entry)
    config = f" {entry['config']}" if entry.get("config") else ""
    return f"{'on' if entry.get('enabled') else 'off'}{config}"
