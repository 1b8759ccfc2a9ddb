"""A profile: the schema that a migration brings records into, read from YAML. Data, never code."""

from __future__ import annotations

import hashlib
import re
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chromactl.errors import UsageError

FieldType = Literal["str", "int", "float", "bool", "list"]
Default = str | int | float | bool


class Regex(BaseModel):
    """Take what a pattern's first group finds in a text field of the record."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    field: str
    pattern: str

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from error
        return pattern


class Origin(BaseModel):
    """Where a value may come from; exactly one of the three."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    field: str | None = None
    regex: Regex | None = None
    document: Literal["words"] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Origin:
        if len(self.model_fields_set) != 1:
            raise ValueError("an origin is exactly one of field, regex, document")
        return self


class Rule(BaseModel):
    """What one field of a migrated record holds.

    The first origin that the record has wins; `values` translates it; then come `default` (a text may name
    {collection}), and without one the field is left out or, if `required`, the record rejected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    type: FieldType = "str"
    constant: Default | None = None
    origins: tuple[Annotated[Origin | str, Field(union_mode="left_to_right")], ...] = Field(
        default=(), validation_alias="from"
    )
    values: dict[str, Default] = Field(default_factory=dict)
    default: Default | None = None
    required: bool = False
    allowed: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    format: Literal["citation"] | None = None


class CollectionRules(BaseModel):
    """The fields that only one collection has."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fields: dict[str, Rule] = Field(default_factory=dict)


class Profile(BaseModel):
    """A whole profile. Without `collections` it takes every collection; without rules it copies as is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    description: str = ""
    fields: dict[str, Rule] = Field(default_factory=dict)
    collections: dict[str, CollectionRules] | None = None
    keep_other_fields: bool = True
    usual_dimensions: tuple[int, ...] | None = None

    def names(self, collection: str) -> bool:
        """Whether this profile takes the collection."""
        return self.collections is None or collection in self.collections

    def rules(self, collection: str) -> dict[str, Rule]:
        """The rules for a collection's fields, in the order of the file; its own win over the common ones."""
        own = self.collections[collection].fields if self.collections else {}
        return {**self.fields, **own}

    @cached_property
    def digest(self) -> str:
        """A short digest of what the profile says, for fingerprints."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


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
        return Profile.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise UsageError(f"profile {name_or_file}: not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"profile {name_or_file}: {where}: {first['msg']}") from error
