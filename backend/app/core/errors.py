"""Everything the service can say no with. Docstrings are the default messages; a hint says what to do."""

from __future__ import annotations

import inspect


class ServiceError(Exception):
    """The request could not be served."""

    def __init__(self, message: str | None = None, *, hint: str = "") -> None:
        self.message = message or inspect.cleandoc(type(self).__doc__ or "")
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class StartupError(ServiceError):
    """The service cannot start."""


class InvalidSettings(StartupError):
    """A setting is invalid."""


class KeyFileUnusable(StartupError):
    """The file for the key cannot be used."""


class DirectoryLocked(StartupError):
    """Another process has the Chroma directory open."""


class RebuildRunning(ServiceError):
    """Another rebuild is running."""


class RebuildFailed(ServiceError):
    """The index could not be rebuilt."""


class ChromaUnavailable(ServiceError):
    """Chroma cannot be reached."""


class ConnectionBroken(ChromaUnavailable):
    """The connection to Chroma broke before its answer was complete."""


class ChromaTimeout(ChromaUnavailable):
    """Chroma did not answer in time."""


class ChromaRefusedToken(ChromaUnavailable):
    """Chroma refused the token."""


class NotAChroma(ChromaUnavailable):
    """What answers at this address is not a Chroma server that this service understands."""


class ChromaFailed(ChromaUnavailable):
    """Chroma answered with an error of its own."""


class ChromaUncertain(ChromaUnavailable):
    """Chroma may or may not have taken what was sent, or may yet do so."""


class CollectionUnwritable(ServiceError):
    """This collection cannot be written at the moment."""


class RecordsRefused(ServiceError):
    """Chroma does not take these records as they are."""


class DatabaseUnavailable(ServiceError):
    """PostgreSQL cannot be reached."""


class DatabaseTooSlow(ServiceError):
    """PostgreSQL did not finish a query in time."""


class SchemaUnfit(ServiceError):
    """The database's schema is not the one of this version."""


class EmbeddingUnavailable(ServiceError):
    """The embedding provider cannot be reached."""


class WrongDimension(EmbeddingUnavailable):
    """The embedding provider makes vectors of another dimension than EMBEDDING_DIMENSION."""


class TextRefused(ServiceError):
    """The embedding provider does not take this text."""


class UnknownMemory(ServiceError):
    """There is no such memory."""


class UnknownDocument(ServiceError):
    """There is no such document."""


class UnknownTenant(ServiceError):
    """There is no such tenant."""


class InvalidCursor(ServiceError):
    """The cursor is not one that a page of this list has given."""


class UnknownKey(ServiceError):
    """There is no such API key."""


class UnknownLetter(ServiceError):
    """There is no such dead letter."""


class InvalidMoment(ServiceError):
    """This is not a time."""


class InvalidKey(ServiceError):
    """The API key is not valid."""


class Overloaded(ServiceError):
    """Too many requests are waiting."""


class CollectionMissing(ServiceError):
    """A configured collection does not exist in Chroma at the moment."""


class UnknownCollection(ServiceError):
    """There is no such collection."""


class FilterRefused(ServiceError):
    """The filter (`where`) is not one that Chroma accepts."""


class DimensionMismatch(ServiceError):
    """The collection's vectors and the query's have different dimensions."""


class MixedMetrics(ServiceError):
    """The collections measure distance in different ways, so their results cannot be merged."""
