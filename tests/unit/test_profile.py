from __future__ import annotations

from pathlib import Path

import pytest

from chromactl.errors import UsageError
from chromactl.schema import profile


def written(folder: Path, text: str) -> str:
    path = folder / "own.yml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_the_built_in_profiles_load() -> None:
    assert profile.built_in() == ["identity", "sergio"]
    assert [profile.load(name).name for name in profile.built_in()] == ["identity", "sergio"]


def test_identity_takes_every_collection_and_sergio_its_four() -> None:
    assert profile.load("identity").names("anything")
    sergio = profile.load("sergio")
    assert sergio.names("sergio_corpus")
    assert not sergio.names("other")


def test_an_unknown_profile_is_told_which_there_are() -> None:
    with pytest.raises(UsageError, match=r"profile 'serge': neither a built-in profile \(identity, sergio\)"):
        profile.load("serge")


def test_a_file_of_ones_own_loads(tmp_path: Path) -> None:
    own = profile.load(written(tmp_path, "name: own\nfields: {a: {from: [b], default: '{collection}'}}\n"))
    assert own.rules("x")["a"].default == "{collection}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not YAML"),
        ("name: a\n\tb: c", "not YAML"),
        ("", "valid dictionary"),
        ("- a\n- b\n", "valid dictionary"),
        ("fields: {}\n", "name"),
        ("name: a\nfeilds: {}\n", "feilds"),
        ("name: a\nfields: {x: {form: [y]}}\n", "fields.x.form"),
        ("name: a\nfields: {x: {type: text}}\n", "fields.x.type"),
        (
            "name: a\nfields: {x: {from: [{field: a, document: words}]}}\n",
            "exactly one of field, regex, document, collection",
        ),
        ("name: a\nfields: {x: {from: [{regex: {field: a, pattern: '('}}]}}\n", "pattern"),
        ("name: a\nfields: {x: {format: date}}\n", "fields.x.format"),
        ("name: a\ncollections: {c: {rules: {}}}\n", "collections.c.rules"),
        ("name: a\nname: b\n", "name stands twice"),
        ("name: a\nfields: {x: {default: a}, x: {default: b}}\n", "x stands twice"),
        ("name: a\nfields: {x: {from: [{field: null}]}}\n", "fields.x.from.0: an origin is exactly one of"),
        ("name: a\nfields: {x: {from: [{collection: '(a'}]}}\n", "fields.x.from.0.collection.pattern: not a regular"),
        # A rule that no value can satisfy, or that contradicts itself
        ("name: a\nfields: {x: {type: int, default: one}}\n", "fields.x: default: 'one' is not what the rule itself"),
        ("name: a\nfields: {x: {type: str, default: 1}}\n", "fields.x: default: 1"),
        ("name: a\nfields: {x: {type: bool, default: 1}}\n", "fields.x: default: 1"),
        ("name: a\nfields: {x: {type: list, default: a}}\n", "fields.x: default: 'a'"),
        ("name: a\nfields: {x: {allowed: [b, c], default: d}}\n", "(not one of b, c)"),
        ("name: a\nfields: {x: {type: int, minimum: 1, default: 0}}\n", "(below 1)"),
        ("name: a\nfields: {x: {type: float, maximum: 1, constant: 2}}\n", "fields.x: constant: 2"),
        ("name: a\nfields: {x: {format: citation, default: none}}\n", "(not a citation)"),
        (
            "name: a\nfields: {x: {from: [y], allowed: [en], values: {english: eng}}}\n",
            "fields.x: values: english: 'eng'",
        ),
        ("name: a\nfields: {x: {type: float, default: .nan}}\n", "fields.x.default"),
        ("name: a\nfields: {x: {constant: a, from: [b]}}\n", "a constant leaves nothing for from"),
        ("name: a\nfields: {x: {minimum: 1}}\n", "minimum and maximum are for type int or float"),
        ("name: a\nfields: {x: {type: int, allowed: [a]}}\n", "allowed and format are for type str"),
        ("name: a\nfields: {x: {type: int, minimum: 2, maximum: 1}}\n", "minimum 2 is above maximum 1"),
        # Routing
        ("name: a\ncollections: {c: {from: []}}\n", "collections.c.from"),
        ("name: a\ncollections: {c: {from: [d, d]}}\n", "collections.c.from: names d twice"),
        ("name: a\ncollections: {c: {where: }}\n", "collections.c.where: a where without a condition"),
        ("name: a\ncollections: {c: {where: {}}}\n", "collections.c.where: a where without a condition"),
        ("name: a\ncollections: {c: {where: []}}\n", "collections.c.where: a where without a condition"),
        ("name: a\ncollections: {c: {where: {in: [a]}}}\n", "collections.c.where.0.field: Field required"),
        (
            "name: a\ncollections: {c: {where: {field: x}}}\n",
            "collections.c.where.0: a condition has a field and exactly",
        ),
        ("name: a\ncollections: {c: {where: {field: x, in: [a], matches: a}}}\n", "exactly one of in, matches"),
        ("name: a\ncollections: {c: {where: {field: x, in: []}}}\n", "in: [] takes no record at all"),
        (
            "name: a\ncollections: {c: {where: {field: x, matches: '['}}}\n",
            "collections.c.where.0.matches: not a regular",
        ),
        ("name: a\ncollections: {c: {where: {field: x, is: a}}}\n", "collections.c.where.0.is: Extra inputs"),
        ("name: a\ncollections: {c: {ids: '{collection}'}}\n", "collections.c.ids: '{collection}' has no {id}"),
        ("name: a\ncollections: {c: {ids: '{id}{name}'}}\n", "{name} is neither {collection} nor {id}"),
        ("name: a\ncollections: {c: {space: euclid}}\n", "collections.c.space"),
        ("name: a\ncollections: {c: {metadata: {tags: [a]}}}\n", "collections.c.metadata.tags"),
        ("name: a\ncollections: {c: {metadata: {'hnsw:space': ip}}}\n", "the metric is said with space"),
        (
            "name: a\ncollections: {all: {from: [c]}, some: {from: [b, c], where: {field: x, in: [1]}}}\n",
            "collections.some: can never get a record of c, because all stands before it",
        ),
        (
            "name: a\ncollections: {one: {from: [c], where: {field: x, in: [1]}}, c: {}, two: {from: [c]}}\n",
            "collections.two: can never get a record of c, because c stands before it",
        ),
        (
            "name: a\nfields: {x: {allowed: [_c], default: '_{collection}'}}\ncollections: {c: {from: [c, d]}}\n",
            "collections.c: the default of x is '_d' for records of d",
        ),
    ],
)
def test_what_is_no_profile_is_refused_in_one_line_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        profile.load(written(tmp_path, text))
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"profile {tmp_path / 'own.yml'}: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yml").write_bytes(b"\xff\xfename")
    with pytest.raises(UsageError, match=r"own\.yml"):
        profile.load(str(tmp_path / "own.yml"))


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    one = profile.load(written(tmp_path, "name: a\nfields: {x: {default: b}}\n")).digest
    same = profile.load(written(tmp_path, "fields:\n  x:\n    default: b\nname: a\n")).digest
    other = profile.load(written(tmp_path, "name: a\nfields: {x: {default: c}}\n")).digest
    assert one == same != other


# Routing

ROUTES = """
name: routes
collections:
  spanish: {from: [notes, letters], where: {field: language, in: [es]}, ids: "{collection}/{id}"}
  letters: {where: {field: year, matches: "^19"}}
  notes: {space: ip, metadata: {owner: me, n: 1}}
  rest: {from: [letters]}
"""


def test_targets_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    own = profile.load(written(tmp_path, ROUTES))
    assert own.targets("letters") == ["spanish", "letters", "rest"]
    assert own.targets("notes") == ["spanish", "notes"]
    assert own.targets("rest") == own.targets("spanish") == own.targets("other") == []
    assert [own.names(name) for name in ("letters", "notes", "rest")] == [True, True, False]


def test_without_collections_a_collection_is_its_own_target() -> None:
    assert profile.load("identity").targets("anything") == ["anything"]


def test_a_collection_with_nothing_to_say_is_taken_as_it_is(tmp_path: Path) -> None:
    assert profile.load(written(tmp_path, "name: a\ncollections:\n  pets:\n")).targets("pets") == ["pets"]


def test_with_no_collections_at_all_nothing_is_taken(tmp_path: Path) -> None:
    assert profile.load(written(tmp_path, "name: none\ncollections: {}\n")).targets("anything") == []


def test_ids_can_be_rewritten(tmp_path: Path) -> None:
    own = profile.load(written(tmp_path, ROUTES))
    assert own.rewrites_ids("spanish")
    assert not own.rewrites_ids("notes")
    assert own.target_id("letters", "spanish", "{collection} 1") == "letters/{collection} 1"
    assert own.target_id("letters", "rest", "1") == "1"
    assert profile.load("identity").target_id("a", "a", "1") == "1"
    assert not profile.load("identity").rewrites_ids("a")


def test_a_target_says_what_it_is_itself(tmp_path: Path) -> None:
    collections = profile.load(written(tmp_path, ROUTES)).collections or {}
    assert (collections["notes"].space, collections["notes"].metadata) == ("ip", {"owner": "me", "n": 1})
    assert (collections["rest"].space, collections["rest"].metadata) == (None, None)


def test_only_the_last_target_of_a_source_takes_the_rest(tmp_path: Path) -> None:
    text = "name: a\ncollections: {x: {from: [c], where: {field: f, in: [1]}}, y: {from: [c]}, z: {from: [d]}}\n"
    assert profile.load(written(tmp_path, text)).targets("c") == ["x", "y"]
