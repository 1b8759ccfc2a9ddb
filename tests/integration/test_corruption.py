"""A record that is bent or lost on its way to the target is found, named, and nothing goes live."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from support.command import Chromactl
from support.databases import Database, assert_holds
from support.forwarder import Spoil, forwarder
from support.records import Made, plain

VICTIM = "r00042"


def row(body: dict[str, Any]) -> int | None:
    return body["ids"].index(VICTIM) if VICTIM in body["ids"] else None


def embedding(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    vector = np.frombuffer(base64.b64decode(body["embeddings"][at]), "<f4").copy()
    vector[3] = np.nextafter(vector[3], np.float32(100))
    body["embeddings"][at] = base64.b64encode(vector.tobytes()).decode()
    return True


def metadata(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    body["metadatas"][at]["number"] += 1
    return True


def metadata_type(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    body["metadatas"][at]["number"] = float(body["metadatas"][at]["number"])
    return True


def metadata_key(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    del body["metadatas"][at]["odd"]
    return True


def document(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    body["documents"][at] += " "
    return True


def dropped(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    for column in body.values():
        del column[at]
    return True


def renamed(path: str, body: dict[str, Any]) -> bool:
    if (at := row(body)) is None:
        return False
    body["ids"][at] = "somebody else"
    return True


@pytest.mark.parametrize(
    ("spoil", "fields"),
    [
        (embedding, {"embedding"}),
        (metadata, {"number"}),
        (metadata_type, {"number"}),
        (metadata_key, {"odd"}),
        (document, {"document"}),
        (dropped, {"record"}),
        (renamed, {"record"}),
    ],
)
@pytest.mark.parametrize("occupied", [False, True])
def test_what_is_spoiled_on_the_way_never_goes_live(
    pair: tuple[Database, Database],
    chromactl: Chromactl,
    tmp_path: Path,
    spoil: Spoil,
    fields: set[str],
    occupied: bool,
) -> None:
    source, target = pair
    live = Made("pets", "l2", plain(5, seed=3))
    source.put(Made("pets", "l2", plain(60)), Made("other", "l2", plain(5)))
    if occupied:
        target.put(live)
    with forwarder(target.url, spoil) as between:
        place = ["--source-url", source.url, "--target-url", between.url, "--database", source.name]
        ended = chromactl("migrate", *place, "--profile", "identity", "--replace", "--json")
        assert between.spoiled == 1
    assert (ended.code, ended.out) == (4, "")
    (differences,) = (tmp_path / "migration_logs").glob("*.differences.jsonl")
    assert str(differences) in ended.complaint
    lines = [orjson.loads(line) for line in differences.read_bytes().splitlines()]
    assert {line["collection"] for line in lines} == {"pets"}
    assert VICTIM in {line["id"] for line in lines}
    assert {line["field"] for line in lines} == fields
    assert target.names() == (["pets"] if occupied else [])
    if occupied:
        assert_holds(target.records("pets"), live.records, "l2")


@pytest.mark.parametrize("more", [(), ("--strict-phases",)], ids=["overlapped", "strict"])
@pytest.mark.parametrize("spoil", [embedding, metadata])
def test_what_is_spoiled_while_other_pieces_are_on_their_way_never_goes_live(
    pair: tuple[Database, Database], chromactl: Chromactl, spoil: Spoil, more: tuple[str, ...]
) -> None:
    source, target = pair
    source.put(Made("other", "l2", plain(1500, prefix="o")), Made("pets", "l2", plain(2300)))
    with forwarder(target.url, spoil) as between:
        place = ["--source-url", source.url, "--target-url", between.url, "--database", source.name]
        ended = chromactl("migrate", *place, "--profile", "identity", "--json", *more)
        assert between.spoiled == 1
    assert ended.code == 4
    assert "1 differences" in ended.complaint
    assert target.names() == []


@pytest.mark.parametrize("spoil", [metadata, document, dropped])
def test_what_a_delta_run_brought_spoiled_can_be_undone(
    pair: tuple[Database, Database], chromactl: Chromactl, spoil: Spoil
) -> None:
    """It changes live collections, so that what it has done must not be forgotten."""
    source, target = pair
    source.put(Made("pets", "l2", plain(60)))
    with forwarder(target.url) as between:
        place = ["--source-url", source.url, "--target-url", between.url, "--database", source.name]
        migrate = ["migrate", *place, "--profile", "identity", "--json"]
        assert chromactl(*migrate).code == 0
        before = target.records("pets")
        source.delete("pets", "r00041")
        source.upsert("pets", replace(before[VICTIM], document="new"), *plain(2, prefix="new"))
        between.spoil = spoil
        ended = chromactl(*migrate)
        assert (ended.code, between.spoiled) == (4, 1)
        (run,) = re.findall(r"undo it with chromactl rollback (--run \S+);", ended.complaint)
        assert chromactl("rollback", *run.split(), "--json").code == 0
        assert_holds(target.records("pets"), before.values(), "l2")
        assert chromactl(*migrate).json["status"] == "complete"
        assert_holds(target.records("pets"), source.records("pets").values(), "l2")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    pair: tuple[Database, Database], chromactl: Chromactl, status: int
) -> None:
    source, target = pair
    made = Made("pets", "l2", plain(60))
    source.put(made)
    with forwarder(target.url) as between:
        between.refuse.extend([status, status])
        place = ["--source-url", source.url, "--target-url", between.url, "--database", source.name]
        ended = chromactl("migrate", *place, "--profile", "identity", "--json")
        assert between.refuse == []
    assert ended.code == 0, ended.err
    assert_holds(target.records("pets"), made.records, "l2")
