"""The plan: which collection goes where, under which name, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from chromactl import files
from chromactl.errors import ChromactlError, PreconditionError, UsageError
from chromactl.migrate.config import MigrateConfig
from chromactl.migrate.plan import (
    PIECE_RECORDS,
    Plan,
    PlannedCollection,
    check_room,
    contested_ids,
    in_pieces,
    plan_targets,
    read_plan,
)
from chromactl.options import access
from chromactl.schema.profile import Profile
from chromactl.stores.base import CollectionSpec
from chromactl.stores.names import LONGEST_NAME


def config(
    collections: dict[str, Any] | None = None, *renames: tuple[str, str], target: str = "http://new:2"
) -> MigrateConfig:
    return MigrateConfig(
        source=access("http://old:1", "source", None, "t", "d"),
        target=access(target, "target", None, "t", "d"),
        profile=Profile.model_validate({"name": "own", "collections": collections}),
        checkpoint_dir=Path(),
        log_dir=Path(),
        backup_dir=Path(),
        renames=renames,
    )


def planned(name: str, ids: list[str] | None = None, **spec: Any) -> PlannedCollection:
    settings: dict[str, Any] = {"space": "cosine", "dimension": 8} | spec
    return PlannedCollection(f"key of {name}", CollectionSpec(name, **settings), in_pieces(ids or []))


MERGED = {"animals": {"from": ["cats", "dogs"]}}


def test_ids_are_cut_into_pieces_in_order() -> None:
    ids = [str(number) for number in range(2 * PIECE_RECORDS + 1)]
    pieces = in_pieces(ids)
    assert [len(piece) for piece in pieces] == [PIECE_RECORDS, PIECE_RECORDS, 1]
    assert [record for piece in pieces for record in piece] == ids
    assert in_pieces([]) == []


def test_a_plan_comes_back_from_its_folder(tmp_path: Path) -> None:
    hnsw: dict[str, int | float] = {"ef_search": 50, "resize_factor": 1.2}
    collections = [
        planned("cats", ["a", "b/ü"], metadata={"n": 1, "f": 0.5, "b": True}, hnsw=hnsw, embedding_function={"x": [1]}),
        planned("dogs", ["a"], dimension=None),
        planned("none"),
    ]
    own = config({**MERGED, "none": {}})
    targets = [replace(target, replaces=f"key {target.name}") for target in plan_targets(own, collections)]
    contested = contested_ids(own.profile, collections, targets)
    plan = Plan(collections, targets, ["left alone"], contested, base="20260101T000000-abcdef")
    plan.write(tmp_path)
    assert read_plan(tmp_path) == plan
    assert contested == {"animals": ["a"]}
    assert read_plan(tmp_path / "nowhere") is None


def test_pieces_come_collection_by_collection() -> None:
    collections = [planned("cats", ["a"] * (PIECE_RECORDS + 1)), planned("none"), planned("dogs", ["b"])]
    plan = Plan(collections, plan_targets(config(), collections), [])
    assert [(piece.planned.name, piece.number, len(piece.ids)) for piece in plan.pieces()] == [
        ("cats", 0, PIECE_RECORDS),
        ("cats", 1, 1),
        ("dogs", 0, 1),
    ]
    assert plan.records == PIECE_RECORDS + 2


# Targets


def test_without_rules_everything_keeps_its_name_and_what_it_is() -> None:
    collections = [planned("cats", metadata={"a": 1}, hnsw={"ef_search": 50}), planned("dogs", space="ip")]
    targets = plan_targets(config(), collections)
    assert [target.spec for target in targets] == [collection.spec for collection in collections]
    assert [(target.rule, target.sources) for target in targets] == [("cats", ["cats"]), ("dogs", ["dogs"])]


def test_a_rename_is_of_the_targets_name_and_leaves_its_rule() -> None:
    (target,) = plan_targets(config(MERGED, ("animals", "zoo")), [planned("cats"), planned("dogs")])
    assert (target.name, target.rule, target.sources) == ("zoo", "animals", ["cats", "dogs"])


def test_names_can_be_exchanged() -> None:
    targets = plan_targets(config(None, ("cats", "dogs"), ("dogs", "cats")), [planned("cats"), planned("dogs")])
    assert [(target.name, target.sources) for target in targets] == [("dogs", ["cats"]), ("cats", ["dogs"])]


def test_what_the_profile_says_of_a_collection_goes_before_its_sources() -> None:
    own = config({"animals": {"from": ["cats", "dogs"], "space": "l2", "metadata": {"owner": "ü"}}})
    (target,) = plan_targets(own, [planned("cats", space="ip", metadata={"a": 1}), planned("dogs")])
    assert (target.spec.space, target.spec.metadata) == ("l2", {"owner": "ü"})


def test_an_empty_collection_has_any_dimension() -> None:
    (target,) = plan_targets(config(MERGED), [planned("cats", dimension=None), planned("dogs", dimension=16)])
    assert target.spec.dimension == 16


class Refused(NamedTuple):
    """Something that cannot be, and how it is said."""

    config: MigrateConfig
    cats: dict[str, Any]
    dogs: dict[str, Any]
    error: type[ChromactlError]
    words: str


REFUSED = {
    "metrics": Refused(
        config(MERGED), {"space": "ip"}, {}, PreconditionError, r"animals: cats, dogs have different metrics"
    ),
    "dimensions": Refused(
        config(MERGED), {"dimension": 9}, {}, PreconditionError, r"animals: cats, dogs .* dimensions \(8, 9\)"
    ),
    "rename of nothing": Refused(
        config(None, ("nobody", "animals")), {}, {}, UsageError, "no collection nobody results from this migration"
    ),
    "rename of a source": Refused(config(MERGED, ("cats", "animals")), {}, {}, UsageError, "no collection cats"),
    "two of one name": Refused(
        config(None, ("cats", "zoo"), ("dogs", "zoo")), {}, {}, UsageError, "2 collections would be called zoo"
    ),
    "the name of another": Refused(config(None, ("cats", "dogs")), {}, {}, UsageError, "would be called dogs"),
    "renamed twice": Refused(config(None, ("cats", "aaa"), ("cats", "bbb")), {}, {}, UsageError, "given 2 times"),
    "short name": Refused(config(None, ("cats", "xy")), {}, {}, UsageError, "'xy' cannot be the name"),
    "odd name": Refused(config(None, ("cats", "a cat")), {}, {}, UsageError, "'a cat' cannot be the name"),
    "odd end": Refused(config(None, ("cats", "cat-")), {}, {}, UsageError, "'cat-' cannot be the name"),
    "profile's name": Refused(config({"a": {"from": ["cats"]}}), {}, {}, PreconditionError, "'a' cannot be the name"),
    "long name": Refused(
        config(None, ("cats", "x" * (LONGEST_NAME + 1))), {}, {}, PreconditionError, f"{LONGEST_NAME} are the most"
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_together_is_refused(case: Refused) -> None:
    known = [name for name in ("cats", "dogs") if case.config.profile.names(name)]
    settings = {"cats": case.cats, "dogs": case.dogs}
    with pytest.raises(case.error, match=case.words) as refused:
        plan_targets(case.config, [planned(name, **settings[name]) for name in known])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["abc", "a.b", "a-b_c", "1-1", "x" * LONGEST_NAME])
def test_names_that_chroma_takes_are_taken(name: str) -> None:
    (target,) = plan_targets(config(None, ("cats", name)), [planned("cats")])
    assert target.name == name


def test_a_file_takes_names_that_no_server_would() -> None:
    (target,) = plan_targets(config(target="out.json"), [planned("a b")])
    assert target.name == "a b"


# Ids that two collections have


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (None, ["both"]),
        ("x-{id}", ["x-both"]),
        ("{collection}:{id}", []),
        ("{id}{id}", ["bothboth"]),
    ],
)
def test_ids_that_more_than_one_collection_would_bring_are_known_beforehand(
    template: str | None, found: list[str]
) -> None:
    own = config({"animals": {"from": ["cats", "dogs"], "ids": template}})
    collections = [planned("cats", ["both", "cat"]), planned("dogs", ["dog", "both"])]
    contested = contested_ids(own.profile, collections, plan_targets(own, collections))
    assert contested == ({"animals": found} if found else {})


def test_a_template_can_make_two_ids_the_same() -> None:
    own = config({"all": {"from": ["cat", "cats"], "ids": "{collection}{id}"}})
    collections = [planned("cat", ["s1", "1"]), planned("cats", ["1"])]
    assert contested_ids(own.profile, collections, plan_targets(own, collections)) == {"all": ["cats1"]}


def test_the_same_id_in_collections_that_stay_apart_is_nobodys_concern() -> None:
    collections = [planned("cats", ["both"]), planned("dogs", ["both"])]
    assert contested_ids(config().profile, collections, plan_targets(config(), collections)) == {}


# Room


def test_too_little_room_for_the_exported_records_is_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections = [planned("cats", [str(number) for number in range(5000)], dimension=768)]
    plan = Plan(collections, plan_targets(config(), collections), [])
    check_room(plan, tmp_path)
    monkeypatch.setattr(files, "free_bytes", lambda folder: 2**20)
    with pytest.raises(PreconditionError, match=r"5,000 records need up to .* only 1 MiB are free"):
        check_room(plan, tmp_path)
