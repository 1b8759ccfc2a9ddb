"""What several routes show on the OpenAPI page."""

from __future__ import annotations

from typing import Any

FILTERS: dict[str, Any] = {
    "with a filter": {"value": {"query": "when will it rain", "limit": 3, "where": {"language": "en"}}},
    "with several conditions": {
        "value": {
            "query": "when will it rain",
            "where": {"$and": [{"priority": {"$gte": 2}}, {"task": {"$in": ["weather", "travel"]}}]},
        }
    },
    "of the last days": {"value": {"query": "when will it rain", "where": {"created_at": {"$gte": 1795132800}}}},
}

LOCATION: dict[int | str, dict[str, Any]] = {
    201: {"headers": {"Location": {"schema": {"type": "string"}, "description": "The path of what was made."}}}
}
