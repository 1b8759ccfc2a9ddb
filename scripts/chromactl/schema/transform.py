"""From a legacy record to one of a profile's schema. Ids, documents, uris and embeddings are never touched."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import date
from typing import Any

from chromactl.reject import Reject
from chromactl.schema.profile import Origin, Profile, Rule
from chromactl.stores.base import Batch, Metadata, MetadataValue

_CITATION = re.compile(r"if://citation/[A-Za-z0-9-]+")
_CITATION_DATE = re.compile(r"-(\d{4})-(\d{2})-(\d{2})$")
_EXACT_FLOAT = 2**53


class _Refused(Exception):
    """This value cannot become what the rule asks for."""


class Transform:
    """A profile's rules for one collection, made ready to be applied to its records."""

    def __init__(self, profile: Profile, collection: str) -> None:
        self._collection = collection
        self._rules = profile.rules(collection)
        self._keep = profile.keep_other_fields
        self._origins = {name: [_origin(origin) for origin in rule.origins] for name, rule in self._rules.items()}

    def apply(self, batch: Batch) -> tuple[Batch, list[Reject]]:
        """The records that could be transformed, in their order, and what was wrong with each of the others."""
        if not self._rules:
            return batch, []
        rows: list[int] = []
        metadatas: list[Metadata | None] = []
        rejects: list[Reject] = []
        for row, (record, document, metadata) in enumerate(
            zip(batch.ids, batch.documents, batch.metadatas, strict=True)
        ):
            transformed, refused = self._record(record, document, metadata or {})
            if refused:
                rejects += refused
            else:
                rows.append(row)
                metadatas.append(transformed)
        kept = batch if len(rows) == len(batch) else batch.take(rows)
        return Batch(kept.ids, kept.embeddings, kept.documents, kept.uris, metadatas), rejects

    def _record(self, record: str, document: str | None, metadata: Metadata) -> tuple[Metadata, list[Reject]]:
        # A key that a value was taken from is renamed by that; every other key passes through.
        fields: Metadata = dict(metadata) if self._keep else {}
        values: Metadata = {}
        rejects: list[Reject] = []
        for name, rule in self._rules.items():
            value, key = self._value(name, rule, document, metadata)
            fields.pop(key, None)
            fields.pop(name, None)
            if value is None:
                if rule.required:
                    rejects.append(Reject(record, name, f"missing_{name}", ""))
                continue
            try:
                values[name] = _checked(_typed(value, rule.type), rule)
            except _Refused:
                rejects.append(Reject(record, name, f"invalid_{name}", repr(value)[:200]))
        return fields | values, rejects

    def _value(
        self, name: str, rule: Rule, document: str | None, metadata: Metadata
    ) -> tuple[MetadataValue | None, str]:
        """The value that the rule finds, and the record's own key that it was found under ("" for none)."""
        if rule.constant is not None:
            return rule.constant, ""
        for key, lookup in self._origins[name]:
            value = lookup(document, metadata)
            if value is not None and value != []:
                translated = rule.values.get(value) if isinstance(value, str) else None
                return (value if translated is None else translated), key
        if isinstance(rule.default, str):
            return rule.default.replace("{collection}", self._collection), ""
        return rule.default, ""


_Lookup = Callable[[str | None, Metadata], MetadataValue | None]


def _origin(origin: Origin | str) -> tuple[str, _Lookup]:
    """How to look a value up, and the key that is used up by finding it there."""
    if isinstance(origin, str):
        return origin, lambda _, metadata: metadata.get(origin)
    if origin.field is not None:
        field = origin.field
        return field, lambda _, metadata: metadata.get(field)
    if origin.regex is not None:
        source, pattern = origin.regex.field, re.compile(origin.regex.pattern)
        return "", lambda _, metadata: _found(pattern, metadata.get(source))
    return "", lambda document, _: None if document is None else len(document.split())


def _found(pattern: re.Pattern[str], value: MetadataValue | None) -> str | None:
    match = pattern.search(value) if isinstance(value, str) else None
    if match is None:
        return None
    return match.group(1) if pattern.groups else match.group(0)


def _typed(value: MetadataValue, wanted: str) -> MetadataValue:
    """The value in the wanted type, where that loses nothing.

    Raises:
        _Refused: it would.
    """
    kind: Any = type(value)
    if kind.__name__ == wanted:
        return value
    if isinstance(value, str) and wanted in ("int", "float"):
        return _number(value, wanted)
    if isinstance(value, str) and wanted == "bool" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if kind is int and wanted == "float" and abs(int(value)) <= _EXACT_FLOAT:  # type: ignore[arg-type]
        return float(value)  # type: ignore[arg-type]
    if kind is float and wanted == "int" and float(value).is_integer():  # type: ignore[arg-type]
        return int(value)  # type: ignore[arg-type]
    raise _Refused


def _number(text: str, wanted: str) -> int | float:
    with contextlib.suppress(ValueError):
        whole = int(text)
        if wanted == "int":
            return whole
        if abs(whole) > _EXACT_FLOAT:
            raise _Refused
    try:
        if wanted == "float":
            return float(text)
    except ValueError as error:
        raise _Refused from error
    raise _Refused


def _checked(value: MetadataValue, rule: Rule) -> MetadataValue:
    if rule.allowed is not None and value not in rule.allowed:
        raise _Refused
    if isinstance(value, int | float):
        # Written so that NaN is refused too.
        if rule.minimum is not None and not value >= rule.minimum:
            raise _Refused
        if rule.maximum is not None and not value <= rule.maximum:
            raise _Refused
    if rule.format == "citation" and not is_citation(str(value)):
        raise _Refused
    return value


def is_citation(text: str) -> bool:
    """Whether the text is empty or `if://citation/<id>`, with a date that exists if it ends in one."""
    if not text:
        return True
    if not _CITATION.fullmatch(text):
        return False
    ending = _CITATION_DATE.search(text)
    if ending is None:
        return True
    try:
        date(*(int(part) for part in ending.groups()))
    except ValueError:
        return False
    return True
