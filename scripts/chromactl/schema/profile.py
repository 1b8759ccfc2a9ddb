"""A profile: the schema that a migration brings records into, read from YAML. Data, never code."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from chromactl.errors import UsageError
from chromactl.schema.rules import CollectionRules, Model, Rule
from chromactl.schema.values import Refused, fitting


def _empty(given: Any) -> Any:
    """A collection that only its name is given of has no rules of its own."""
    return {} if given is None else given


class Profile(Model):
    """A whole profile. Without `collections` it takes every collection; without rules it copies as is.

    `collections` are the target's. A record lands in the first of them, in the order of the file, that takes it.
    """

    name: str
    description: str = ""
    fields: dict[str, Rule] = Field(default_factory=dict)
    collections: dict[str, Annotated[CollectionRules, BeforeValidator(_empty)]] | None = None
    keep_other_fields: bool = True
    usual_dimensions: tuple[int, ...] | None = None

    def targets(self, source: str) -> list[str]:
        """The collections that may take records of this source collection, in the order of the file."""
        return [source] if self.collections is None else list(self._routes.get(source, ()))

    def names(self, source: str) -> bool:
        """Whether this profile takes anything of the source collection."""
        return bool(self.targets(source))

    def rules(self, target: str) -> dict[str, Rule]:
        """The rules for a target collection's fields, in the order of the file; its own win over the common ones."""
        own = self.collections[target].fields if self.collections else {}
        return {**self.fields, **own}

    def rewrites_ids(self, target: str) -> bool:
        """Whether records have other ids in this target collection."""
        return self._id_parts("", target) is not None

    def target_id(self, source: str, target: str, record: str) -> str:
        """The id that a record of this source collection has in the target collection."""
        parts = self._id_parts(source, target)
        return record if parts is None else record.join(parts)

    def _id_parts(self, source: str, target: str) -> list[str] | None:
        return self.collections[target].id_parts(source) if self.collections else None

    @cached_property
    def digest(self) -> str:
        """A short digest of what the profile says, for fingerprints."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    @cached_property
    def _routes(self) -> dict[str, list[str]]:
        routes: dict[str, list[str]] = {}
        for target, rules in (self.collections or {}).items():
            for source in rules.sources or (target,):
                routes.setdefault(source, []).append(target)
        return routes

    @model_validator(mode="after")
    def _every_collection_can_get_records(self) -> Profile:
        collections = self.collections or {}
        for source, targets in self._routes.items():
            takes_all = next((target for target in targets[:-1] if collections[target].where is None), None)
            if takes_all is not None:
                left = targets[targets.index(takes_all) + 1]
                raise ValueError(
                    f"collections.{left}: can never get a record of {source}, because {takes_all} stands before it "
                    "and takes them all; give that one a where, or put it last"
                )
        return self

    @model_validator(mode="after")
    def _defaults_fit(self) -> Profile:
        for source, targets in self._routes.items():
            for target in targets:
                for name, rule in self.rules(target).items():
                    try:
                        if (default := rule.default_for(source)) is not None:
                            fitting(default, rule.limits)
                    except Refused as refused:
                        raise ValueError(
                            f"collections.{target}: the default of {name} is {rule.default_for(source)!r} for records "
                            f"of {source}, and that is not what the rule itself asks for ({refused})"
                        ) from refused
        return self


def built_in() -> list[str]:
    """The names of the profiles that come with chromactl."""
    folder = resources.files("chromactl.schema") / "profiles"
    return sorted(entry.name.removesuffix(".yml") for entry in folder.iterdir() if entry.name.endswith(".yml"))


def load(name_or_file: str) -> Profile:
    """The built-in profile of this name, or the one in this YAML file.

    Raises:
        UsageError: there is none, or it is not a profile; the message says where and what is wrong.
    """
    if name_or_file in built_in():
        text = (resources.files("chromactl.schema") / "profiles" / f"{name_or_file}.yml").read_text(encoding="utf-8")
    else:
        path = Path(name_or_file)
        if not path.is_file():
            raise UsageError(
                f"profile {name_or_file!r}: neither a built-in profile ({', '.join(built_in())}) nor a YAML file"
            )
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            words = error.strerror if isinstance(error, OSError) else "not text"
            raise UsageError(f"profile {name_or_file}: cannot be read ({words}); check path and mode") from error
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"profile {name_or_file}: {error}") from error


def parse(text: str) -> Profile:
    """The profile that this YAML text is.

    Raises:
        ValueError: it is none; the message says in one line where and what is wrong.
    """
    try:
        return Profile.model_validate(yaml.load(text, _Loader))  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(": ".join([*([".".join(place)] if place else []), what])) from error


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: the plain loader would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)
