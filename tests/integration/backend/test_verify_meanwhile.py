"""`app verify` while the index is changed, or cannot give everything back: it says neither too much nor too little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.core.chroma.resolver import replaced_name
from support.databases import new_database
from support.forwarder import Guard, forwarder
from support.indexes import ANN, Place
from support.records import Made, Record
from support.servers import Server

NAME = ANN.collection("memory")


@pytest.fixture
def place(tmp_path: Path, ready_url: str, receiving: Server) -> Place:
    made = Place(tmp_path, ready_url, new_database(receiving))
    made.remember(ANN, range(30))
    made.without_events()
    made.rebuild()
    return made


def verified(place: Place, guard: Guard, code: int = 0) -> dict[str, Any]:
    """What `app verify` says whose requests to Chroma pass the guard."""
    with forwarder(place.chroma.url, guard=guard) as way:
        place.more["CHROMA_PORT"] = way.url.rpartition(":")[2]
        (found,) = place.verify(code=code)["collections"]
        return dict(found)


def test_a_collection_that_is_replaced_meanwhile_is_not_compared_with_what_it_replaced(place: Place) -> None:
    swapped: list[str] = []

    def swap(path: str, body: dict[str, Any]) -> None:
        """As a rebuild does, when somebody has just deleted a record: the old one goes on answering for seconds."""
        if path.endswith("/get") and not swapped:
            swapped.append(path)
            place.sql("DELETE FROM memory_logs WHERE id = (SELECT min(id) FROM memory_logs)")
            place.without_events()
            old = place.chroma.description(NAME)["id"]
            place.chroma.request("PUT", f"/collections/{old}", {"new_name": replaced_name(NAME)})
            place.chroma.put(Made(NAME, "cosine", place.wanted()[NAME]))

    found = verified(place, swap)
    assert swapped
    assert (found["records"], found["extra"], found["missing"], found["different"]) == (29, 0, 0, 0)


def test_a_record_too_many_is_told_even_if_chroma_cannot_give_it_back(place: Place) -> None:
    stray = "memory_log_987654321"
    place.chroma.upsert(NAME, Record(stray, np.ones(32, np.float32), "of nobody", None, {"a": 1}))

    def refuse(path: str, body: dict[str, Any]) -> tuple[int, Any] | None:
        unreadable = path.endswith("/get") and stray in (body.get("ids") or [])
        return (500, {"error": "InternalError", "message": "Error finding id"}) if unreadable else None

    found = verified(place, refuse, code=4)
    assert (found["extra"], found["examples"]["extra"]) == (1, [stray])
