"""Which indexes a 1.5 schema switches on, and how two of them differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from chromactl.stores.index_switches import differing, own_schema

PLAIN: dict[str, Any] = {
    "defaults": {
        "string": {
            "fts_index": {"enabled": False, "config": {}},
            "string_inverted_index": {"enabled": True, "config": {}},
        },
        "float_list": {"vector_index": {"enabled": False, "config": {"space": "l2", "hnsw": {"ef_search": 100}}}},
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
        },
        "#embedding": {"float_list": {"vector_index": {"enabled": True, "config": {"space": "cosine"}}}},
        "written": {"int": {"int_inverted_index": {"enabled": True, "config": {}}}},
    },
}


def switched(key: str, kind: str, index: str, *, enabled: bool, level: str = "keys") -> dict[str, Any]:
    made = copy.deepcopy(PLAIN)
    place = made[level].setdefault(key, {}) if level == "keys" else made[level]
    place.setdefault(kind, {})[index] = {"enabled": enabled, "config": {}}
    return made


def test_a_plain_schema_says_nothing() -> None:
    assert own_schema(None) is None
    assert own_schema(PLAIN) is None
    assert differing(PLAIN, None) == differing(None, PLAIN) == differing(None, None) == []


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        (
            switched("author", "string", "string_inverted_index", enabled=False),
            ("string_inverted_index of author", "on", "off"),
        ),
        (switched("#document", "string", "fts_index", enabled=False), ("fts_index of #document", "on", "off")),
        (
            switched("", "int", "int_inverted_index", enabled=False, level="defaults"),
            ("int_inverted_index of every int", "on", "off"),
        ),
    ],
)
def test_a_switch_is_found_from_either_side(schema: dict[str, Any], found: tuple[str, str, str]) -> None:
    index, before, now = found
    assert own_schema(schema) is schema
    assert found in differing(None, schema)
    assert (index, now, before) in differing(schema, PLAIN)
    assert differing(schema, copy.deepcopy(schema)) == []


def test_a_key_that_was_written_on_one_side_only_is_no_difference() -> None:
    schema = switched("author", "string", "string_inverted_index", enabled=False)
    more = copy.deepcopy(schema)
    more["keys"]["later"] = {"bool": {"bool_inverted_index": {"enabled": True, "config": {}}}}
    assert differing(schema, more) == []


def test_what_else_a_schema_may_say_is_compared_too() -> None:
    assert differing(PLAIN, {**PLAIN, "cmek": "key"}) == [("cmek", "None", "key")]
