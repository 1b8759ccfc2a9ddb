"""Whose records they are, and the name of the collection that holds them: derived, never taken from input."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["memory", "passage"]

_PREFIX: dict[Kind, str] = {"memory": "mem", "passage": "rag"}
# Every name of a tenant's collection, and no other name that the service may be told to serve.
_TENANT_COLLECTION = re.compile(r"(mem|rag)\.[a-z0-9-]{0,24}\.[0-9a-f]{32}")
_NAMED = re.compile(r"\b(mem|rag)\.[a-z0-9-]{0,24}\.([0-9a-f]{32})\b")
_READABLE = 24


@dataclass(frozen=True, slots=True, order=True)
class Tenant:
    """A user's project. An API key belongs to one, and sees nothing of any other."""

    user_id: str
    project_id: str

    def collection(self, kind: Kind) -> str:
        """The name of the Chroma collection: `mem.<readable part>.<128 bits of SHA-256 of user and project>`.

        Chroma takes 3 to 512 of [a-zA-Z0-9._-], beginning and ending with a letter or digit.
        """
        digest = self._digest()[:32]
        readable = re.sub(r"[^a-z0-9]+", "-", f"{self.user_id}-{self.project_id}".lower()).strip("-")[:_READABLE]
        return f"{_PREFIX[kind]}.{readable}.{digest}"

    @property
    def mark(self) -> str:
        """Who it is, for logs that name nobody: the beginning of the hash in the names of its collections."""
        return self._digest()[:12]

    def _digest(self) -> str:
        # separated by what neither may hold, so that ("a", "bc") is not ("ab", "c")
        return hashlib.sha256(f"{self.user_id}\x00{self.project_id}".encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.user_id}/{self.project_id}"


def without_names(text: str) -> str:
    """The text with the readable part of tenants' collection names left out: the hash in them says which they are."""
    return _NAMED.sub(r"\1.*.\2", text)


def is_tenant_collection(name: str) -> bool:
    """Whether a collection of this name belongs to a tenant."""
    return _TENANT_COLLECTION.fullmatch(name) is not None
