"""What a profile's rules may say about fields and collections, checked when they are read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, field_validator, model_validator

from chromactl.schema.values import Limits, Refused, fitting

FieldType = Literal["str", "int", "float", "bool", "list"]
Value = str | int | FiniteFloat | bool


class Model(BaseModel):
    """What all parts of a profile have in common: no unknown keys, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
    return text


Pattern = Annotated[str, BeforeValidator(lambda text: _pattern(text) if isinstance(text, str) else text)]


class Regex(Model):
    """Take what a pattern's first group (or without groups, all of it) finds in a text field of the record."""

    field: str
    pattern: Pattern


class CollectionName(Model):
    """Take what a pattern's first group (or without groups, all of it) finds in the source collection's name."""

    pattern: Pattern


class Origin(Model):
    """Where a value may come from; exactly one of the four."""

    field: str | None = None
    regex: Regex | None = None
    document: Literal["words"] | None = None
    collection: Annotated[
        CollectionName | None, BeforeValidator(lambda text: {"pattern": text} if isinstance(text, str) else text)
    ] = None

    @model_validator(mode="after")
    def _one_origin(self) -> Origin:
        if sum(value is not None for value in (self.field, self.regex, self.document, self.collection)) != 1:
            raise ValueError("an origin is exactly one of field, regex, document, collection")
        return self


class Condition(Model):
    """What a record's metadata has to hold: one of some values, or a text that a pattern is found in.

    Of a list, one member is enough. Types count: `true` is not 1, and 1 is not 1.0.
    """

    field: str
    among: tuple[Value, ...] | None = Field(default=None, validation_alias="in")
    matches: Pattern | None = None

    @model_validator(mode="after")
    def _one_test(self) -> Condition:
        if (self.among is None) == (self.matches is None):
            raise ValueError("a condition has a field and exactly one of in, matches")
        if self.among == ():
            raise ValueError("in: [] takes no record at all")
        return self


class Rule(Model):
    """What one field of a migrated record holds.

    The first origin that the record has (without any, the field of this name) wins; `values` translates it;
    then come `default` (a text may name {collection}, the source's), and without one the field is left out or, if
    `required`, the record rejected.
    """

    type: FieldType = "str"
    constant: Value | None = None
    origins: tuple[
        Annotated[Origin, BeforeValidator(lambda given: {"field": given} if isinstance(given, str) else given)], ...
    ] = Field(default=(), validation_alias="from")
    values: dict[str, Value] = Field(default_factory=dict)
    default: Value | None = None
    required: bool = False
    allowed: tuple[str, ...] | None = None
    minimum: FiniteFloat | None = None
    maximum: FiniteFloat | None = None
    format: Literal["citation"] | None = None

    @property
    def limits(self) -> Limits:
        """What a value has to be."""
        return Limits(self.type, self.allowed, self.minimum, self.maximum, self.format)

    def default_for(self, source: str) -> Value | None:
        """The default of a record from this source collection."""
        return self.default.replace("{collection}", source) if isinstance(self.default, str) else self.default

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Rule:
        if self.constant is not None and (self.origins or self.values or self.default is not None):
            raise ValueError("a constant leaves nothing for from, values or default to say")
        if self.type not in ("int", "float") and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"minimum and maximum are for type int or float, not {self.type}")
        if self.type != "str" and (self.allowed is not None or self.format is not None):
            raise ValueError(f"allowed and format are for type str, not {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum:g} is above maximum {self.maximum:g}")
        named = "{collection}" in self.default if isinstance(self.default, str) else False
        self._check("constant", self.constant)
        self._check("default", None if named else self.default)
        for text, value in self.values.items():
            self._check(f"values: {text}", value)
        return self

    def _check(self, what: str, value: Value | None) -> None:
        try:
            if value is not None:
                fitting(value, self.limits)
        except Refused as refused:
            raise ValueError(f"{what}: {value!r} is not what the rule itself asks for ({refused})") from refused


def _conditions(given: Any) -> Any:
    if not given:
        raise ValueError("a where without a condition; give {field: …, in: […]} or {field: …, matches: …}")
    return [given] if isinstance(given, dict) else given


class CollectionRules(Model):
    """One collection of the target: which source records it takes, and the fields that only it has.

    `sources` are names of source collections (without them, the one of the same name); `where` narrows what is
    taken of them. `ids` rewrites ids. `space` and `metadata` are for the collection itself, where they are not to
    be those of its source.
    """

    sources: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(default=None, validation_alias="from")
    where: Annotated[tuple[Condition, ...] | None, BeforeValidator(_conditions)] = None
    ids: str | None = None
    space: Literal["cosine", "l2", "ip"] | None = None
    metadata: dict[str, Value] | None = None
    fields: dict[str, Rule] = Field(default_factory=dict)

    @field_validator("sources")
    @classmethod
    def _once_each(cls, sources: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = next((name for name in sources or () if (sources or ()).count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"names {twice} twice")
        return sources

    @field_validator("ids")
    @classmethod
    def _tells_records_apart(cls, template: str | None) -> str | None:
        if template is None:
            return None
        if "{id}" not in template:
            raise ValueError(f"{template!r} has no {{id}}, so all records would have one id")
        other = re.search(r"\{(?!id\}|collection\})[^{}]*\}", template)
        if other is not None:
            raise ValueError(f"{other.group()} is neither {{collection}} nor {{id}}")
        return template

    @field_validator("metadata")
    @classmethod
    def _no_settings(cls, metadata: dict[str, Value] | None) -> dict[str, Value] | None:
        # Chroma still obeys these keys, and over the collection's configuration.
        key = next((key for key in metadata or {} if key.startswith("hnsw:")), None)
        if key is not None:
            raise ValueError(f"{key} is a setting, not metadata; the metric is said with space")
        return metadata

    def id_parts(self, source: str) -> list[str] | None:
        """What stands around {id} in the template, so that `id.join(parts)` is the new id; None: ids stay."""
        if self.ids is None:
            return None
        return [part.replace("{collection}", source) for part in self.ids.split("{id}")]
