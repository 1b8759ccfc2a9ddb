from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from chromactl import cli
from chromactl.errors import PreconditionError, UsageError
from chromactl.profile_check import CheckReport, check_profile
from chromactl.schema.profile import Profile
from chromactl.stores.base import Batch, Collection, CollectionSpec, Unreadable
from chromactl.stores.file_source import FileSource, RecordIndex
from support.command import Chromactl
from support.records import Record, batch_of


class Memory(FileSource):
    """A database in memory whose embeddings nobody may ask for."""

    def __init__(self, collections: dict[str, Batch]) -> None:
        self.url = "memory"
        self._collections = {name: Collection(CollectionSpec(name, "l2"), name) for name in collections}
        self._records = {name: RecordIndex() for name in collections}
        for name, batch in collections.items():
            self._records[name].add(batch.ids, lambda batch=batch: batch)  # type: ignore[misc]

    def databases(self) -> list[str]:
        return ["memory"]

    def read(self, collection: Collection, ids: Sequence[str]) -> tuple[Batch, list[Unreadable]]:
        raise AssertionError("embeddings were read")

    def read_text(self, collection: Collection, ids: Sequence[str]) -> Batch:
        batch, _ = super().read(collection, ids)
        return Batch(batch.ids, np.empty((len(batch), 0), np.float32), batch.documents, batch.uris, batch.metadatas)


def records(*metadatas: dict[str, Any] | None) -> Batch:
    rows = [
        Record(f"r{number}", np.ones(8, np.float32), "two words", None, metadata)
        for number, metadata in enumerate(metadatas)
    ]
    return batch_of(rows)


def checked(fields: dict[str, Any], *metadatas: dict[str, Any] | None, **settings: Any) -> CheckReport:
    profile = Profile.model_validate({"name": "own", "fields": fields, **settings})
    return check_profile(profile, Memory({"pets": records(*metadatas)}))


def field_of(report: CheckReport, name: str = "a", target: str = "pets") -> dict[str, Any]:
    found = report.as_json()["targets"][target]["fields"][name]
    return {key: value for key, value in found.items() if value}


# What a rule does


def test_the_keys_that_values_come_from() -> None:
    report = checked({"a": {"from": ["a", "b"], "default": "d"}}, {"a": "1"}, {"b": "2"}, {"b": "3"}, None)
    assert field_of(report) == {"from": {"a": 1, "b": 2}, "default": 1}


def test_constants_translations_conversions_and_what_is_left_out() -> None:
    fields = {
        "a": {"constant": "x"},
        "b": {"from": ["b"], "values": {"english": "en"}},
        "c": {"type": "int", "from": ["c"]},
        "d": {"type": "int", "from": [{"document": "words"}]},
        "e": {"from": [{"regex": {"field": "b", "pattern": "^e"}}]},
        "f": {"from": [{"collection": ".*"}]},
    }
    report = checked(fields, {"b": "english", "c": "5"}, {"b": "en", "c": 5.0}, {"b": "es", "c": 5})
    assert field_of(report, "a") == {"constant": 3}
    assert field_of(report, "b") == {"from": {"b": 3}, "translated": 1}
    assert field_of(report, "c") == {"from": {"c": 3}, "converted": {"str to int": 1, "float to int": 1}}
    assert field_of(report, "d") == {"from": {"words of the document": 3}}
    assert field_of(report, "e") == {"from": {"a pattern on b": 3}}
    assert field_of(report, "f") == {"from": {"the collection's name": 3}}
    assert field_of(checked({"a": {"from": ["a"]}}, {"a": "x"}, {"b": "y"})) == {"from": {"a": 1}, "absent": 1}


def test_rejects_by_reason_with_the_first_example() -> None:
    rule = {"type": "int", "from": ["a"], "minimum": 0, "required": True}
    report = checked({"a": rule}, {"a": 1}, {"a": -1}, {"a": "x"}, {"b": 1})
    assert field_of(report)["rejected"] == {"invalid_a": 2, "missing_a": 1}
    assert field_of(report)["examples"] == {"invalid_a": "r1", "missing_a": "r3"}
    assert (report.records, report.rejected, report.advice) == (4, 3, "INVESTIGATE")
    assert report.targets["pets"].records == 1


def test_a_default_that_never_fits_is_a_reject() -> None:
    report = checked({"a": {"default": "{collection}", "allowed": ["cats"]}}, {"b": 1})
    assert field_of(report)["rejected"] == {"invalid_a": 1}


def test_what_no_server_takes_is_found_too() -> None:
    report = checked({}, {"good": 1}, {"#bad": 1, "list": []})
    assert field_of(report, "#bad") == {"rejected": {"reserved_key": 1}, "examples": {"reserved_key": "r1"}}
    assert report.reasons == {"reserved_key": 1, "invalid_list": 1}
    assert report.rejected == 1


def test_keys_that_pass_through_are_counted() -> None:
    report = checked({"a": {"from": ["b"]}}, {"a": "x", "b": "y", "c": 1}, {"c": 2, "d": 3})
    assert report.targets["pets"].untouched == {"c": 2, "d": 1}
    assert checked({}, {"c": 1}).targets["pets"].untouched == {"c": 1}
    assert checked({}, {"c": 1}, keep_other_fields=False).targets["pets"].untouched == {}


# Where records go


def test_where_the_records_of_each_source_go() -> None:
    collections = {
        "cats": {"from": ["pets"], "where": {"field": "kind", "in": ["cat"]}},
        "dogs": {"from": ["pets"], "where": {"field": "kind", "in": ["dog"]}, "fields": {"a": {"required": True}}},
    }
    profile = Profile.model_validate({"name": "own", "collections": collections})
    pets = records({"kind": "cat"}, {"kind": "cat"}, {"kind": "dog"}, {"kind": "bird"})
    report = check_profile(profile, Memory({"pets": pets, "other": records(None)}))
    assert report.as_json()["sources"] == {"pets": {"records": 4, "targets": {"cats": 2}, "nowhere": 1, "refused": 1}}
    assert report.skipped == ["other"]
    assert report.as_json()["rejects"] == {
        "records": 2,
        "rate": 0.5,
        "by_reason": {"no_collection": 1, "missing_a": 1},
    }


def test_ids_that_two_sources_share_in_one_target() -> None:
    for ids, rejected in ((None, {"duplicate_id": 2}), ("{collection}/{id}", {})):
        collections = {"animals": {"from": ["cats", "dogs"], "ids": ids}}
        profile = Profile.model_validate({"name": "own", "collections": collections})
        report = check_profile(profile, Memory({"cats": records(None, None), "dogs": records(None, None, None)}))
        assert report.reasons == rejected


def test_only_the_collections_that_are_asked_for() -> None:
    store = Memory({"pets": records(None), "other": records(None)})
    report = check_profile(Profile(name="all"), store, collections=["pets"])
    assert (list(report.sources), report.skipped) == (["pets"], ["other"])
    with pytest.raises(UsageError, match="--collection cats: not in memory"):
        check_profile(Profile(name="all"), store, collections=["cats"])
    none = Profile.model_validate({"name": "none", "collections": {"x": {}}})
    with pytest.raises(UsageError, match="--collection pets: the profile none does not name it"):
        check_profile(none, store, collections=["pets"])
    with pytest.raises(PreconditionError, match="memory: holds none of the collections that the profile none names"):
        check_profile(none, store)


def test_collections_of_another_run_are_not_looked_at() -> None:
    store = Memory({"pets": records(None), "pets--before-20260101T000000-abcdef": records(None)})
    report = check_profile(Profile(name="all"), store)
    assert (list(report.sources), report.skipped) == (["pets"], [])


def test_an_empty_collection_is_no_reason_to_worry() -> None:
    report = check_profile(Profile(name="all"), Memory({"pets": records()}))
    assert (report.records, report.reject_rate, report.advice) == (0, 0.0, "PROCEED")


@pytest.mark.parametrize(("allowed", "advice"), [(0.5, "PROCEED"), (0.49, "INVESTIGATE"), (0.0, "INVESTIGATE")])
def test_the_advice_follows_the_rate_of_rejects(allowed: float, advice: str) -> None:
    profile = Profile.model_validate({"name": "own", "fields": {"a": {"required": True, "from": ["a"]}}})
    report = check_profile(profile, Memory({"pets": records({"a": "x"}, None)}), max_reject_rate=allowed)
    assert report.advice == advice


# Lines and the command


def test_the_lines_are_for_people() -> None:
    fields = {
        "name": {"from": ["name", "title"], "default": "?"},
        "age": {"type": "int", "from": ["age"], "values": {"one": 1}},
    }
    found = checked(fields, {"title": "a", "age": "one"}, {"age": 1.0, "n": 1}, {"age": "x"})
    assert list(found.lines()) == [
        "pets: 3 records, 2 to pets, 1 refused",
        "pets would hold 2 records:",
        "  name  1 from title, 2 by default",
        "  age   3 from age; 1 translated; 1 converted (float to int); 1 rejected: invalid_age (first: r2)",
        "  as they are: n (1)",
        "1 of 3 records would be rejected: invalid_age 1",
        "Recommendation: INVESTIGATE",
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database of three records in a JSON file."""
    path = tmp_path / "pets.json"
    rows = [
        {"id": f"r{number}", "document": None, "uri": None, "metadata": {"n": number}, "embedding": [1.0, 2.0]}
        for number in range(3)
    ]
    entry: dict[str, Any] = {
        "name": "pets", "space": "l2", "metadata": None, "hnsw": {}, "embedding_function": None, "dimension": 2,
        "records": rows,
    }  # fmt: skip
    path.write_text(json.dumps({"format": "chroma-stack-json", "version": 1, "collections": [entry]}))
    return path


def test_the_command_says_it_in_one_object_or_in_lines(chromactl: Chromactl, file: Path) -> None:
    ended = chromactl("profile", "check", "identity", "--url", file, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert (ended.json["changed"], ended.json["advice"], ended.json["records"]) == (False, "PROCEED", 3)
    ended = chromactl("profile", "check", "identity", "--url", file)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines()[-1] == "Recommendation: PROCEED"


def test_to_investigate_is_an_answer_not_a_failure(chromactl: Chromactl, file: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text("name: own\nfields: {a: {from: [a], required: true}}\n")
    ended = chromactl("profile", "check", "own.yml", "--url", file)
    assert (ended.code, ended.err.splitlines()[-1]) == (0, "Recommendation: INVESTIGATE")


def test_a_bad_profile_is_a_usage_error(chromactl: Chromactl, file: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_text("name: own\nfields: {a: {type: text}}\n")
    ended = chromactl("profile", "check", "own.yml", "--url", file)
    assert ended.code == 2
    assert ended.complaint.startswith("chromactl: profile own.yml: fields.a.type: ")


def test_nothing_to_check_is_a_precondition(chromactl: Chromactl, file: Path) -> None:
    ended = chromactl("profile", "check", "sergio", "--url", file)
    assert ended.code == 3
    assert "holds none of the collections that the profile sergio names" in ended.complaint


def test_the_built_in_profiles_can_be_listed(chromactl: Chromactl) -> None:
    ended = chromactl("profile", "list", "--json")
    assert (ended.code, ended.err, list(ended.json["profiles"])) == (0, "", ["identity", "sergio"])
    assert "The 12-field schema" in chromactl("profile", "list").err


def test_every_option_has_help_and_an_environment_twin() -> None:
    group = cli.cli.commands["profile"]
    assert isinstance(group, click.Group)
    options = [one for command in group.commands.values() for one in command.params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help or not one.envvar] == []
