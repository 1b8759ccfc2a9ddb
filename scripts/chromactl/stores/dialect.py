"""The two REST dialects of Chroma servers, as far as reading needs to tell them apart.

v1 is all that 0.4 and the first 0.5 speak; 0.5.23 speaks both, and half of what 0.6.3 answers in v1 is broken, so v1 is
only for servers that have nothing else. Which one a server speaks is found by asking for its heartbeat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol
from urllib.parse import quote

from chromactl.errors import RequestError


class Dialect(Protocol):
    """The paths of one database, and what the server's refusals mean."""

    HEARTBEAT: ClassVar[str]
    PREFLIGHT: ClassVar[str]

    @property
    def database(self) -> str:
        """The path that answers if tenant and database exist."""

    def databases(self, limit: int, offset: int) -> str:
        """The path of a page of the tenant's databases; 405 where a server does not list them."""

    def collections(self, limit: int, offset: int) -> str:
        """The path of a page of the database's collections."""

    def collection(self, name: str) -> str:
        """The path of the collection of this name."""

    def records(self, key: str, verb: str) -> str:
        """The path that does something to the records of the collection of this id."""

    def means_missing(self, error: RequestError) -> bool:
        """Whether this refusal says that the collection asked for is not there."""


@dataclass(frozen=True, slots=True)
class V2:
    """Late 0.5 to 1.x. What is missing is 400 up to 0.6, and 404 from 1.0 on."""

    tenant: str
    name: str

    HEARTBEAT: ClassVar[str] = "/api/v2/heartbeat"
    PREFLIGHT: ClassVar[str] = "/api/v2/pre-flight-checks"

    @property
    def database(self) -> str:
        """The path of the database, below which everything else lies."""
        return f"/api/v2/tenants/{quote(self.tenant, safe='')}/databases/{quote(self.name, safe='')}"

    def databases(self, limit: int, offset: int) -> str:
        """A page of the tenant's databases, from 0.6 on."""
        return f"/api/v2/tenants/{quote(self.tenant, safe='')}/databases?limit={limit}&offset={offset}"

    def collections(self, limit: int, offset: int) -> str:
        """A page of the collections."""
        return f"{self.database}/collections?limit={limit}&offset={offset}"

    def collection(self, name: str) -> str:
        """The collection of this name."""
        return f"{self.database}/collections/{quote(name, safe='')}"

    def records(self, key: str, verb: str) -> str:
        """What is done to a collection's records."""
        return f"{self.database}/collections/{key}/{verb}"

    def means_missing(self, error: RequestError) -> bool:
        """A refusal in the words of 0.5 to 1.5 ("does not exists" in 1.0)."""
        return error.status in (400, 404) and "does not exist" in str(error)


@dataclass(frozen=True, slots=True)
class V1:
    """0.4 and the first 0.5. Tenant and database are named in the query; what is missing is a 500."""

    tenant: str
    name: str

    HEARTBEAT: ClassVar[str] = "/api/v1/heartbeat"
    PREFLIGHT: ClassVar[str] = "/api/v1/pre-flight-checks"

    @property
    def database(self) -> str:
        """The path of the database; nothing lies below it."""
        return f"/api/v1/databases/{quote(self.name, safe='')}?tenant={quote(self.tenant, safe='')}"

    @property
    def _where(self) -> str:
        return f"tenant={quote(self.tenant, safe='')}&database={quote(self.name, safe='')}"

    def databases(self, limit: int, offset: int) -> str:
        """Where they are made; no version lists them there."""
        return f"/api/v1/databases?tenant={quote(self.tenant, safe='')}&limit={limit}&offset={offset}"

    def collections(self, limit: int, offset: int) -> str:
        """A page of the collections."""
        return f"/api/v1/collections?{self._where}&limit={limit}&offset={offset}"

    def collection(self, name: str) -> str:
        """The collection of this name."""
        return f"/api/v1/collections/{quote(name, safe='')}?{self._where}"

    def records(self, key: str, verb: str) -> str:
        """What is done to a collection's records; their id says which database they are of."""
        return f"/api/v1/collections/{key}/{verb}"

    def means_missing(self, error: RequestError) -> bool:
        """A refusal in the words of 0.4: two kinds of exception that it did not expect itself."""
        words = str(error)
        return "does not exist" in words or (error.status == 500 and "StopIteration" in words)
