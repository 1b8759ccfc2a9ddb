"""The one tree of errors. A class's exit code is part of the command-line contract."""

from __future__ import annotations

from typing import ClassVar


class ChromactlError(Exception):
    """The command failed.

    The message is one line for an operator: what went wrong, where, and what to do.
    """

    exit_code: ClassVar[int] = 1


class UsageError(ChromactlError):
    """The command was called in a way it does not understand."""

    exit_code = 2


class PreconditionError(ChromactlError):
    """Something outside has to be put right before this command can begin; nothing was changed."""

    exit_code = 3


class UnreachableError(PreconditionError):
    """A database does not answer."""


class MissingDatabaseError(PreconditionError):
    """A server has no database of this name for this tenant."""


class EmptySourceError(PreconditionError):
    """A source holds nothing that is to be migrated."""


class AuthenticationError(PreconditionError):
    """A database refused the token."""


class NotChromaError(PreconditionError):
    """What answers, or what lies there, is not a ChromaDB."""


class EmbeddingError(PreconditionError):
    """What embeds texts does not give the vectors that are needed."""


class MissingCollectionError(ChromactlError):
    """A collection that was there is gone."""


class RequestError(ChromactlError):
    """A server refused a request; `status` is the HTTP status it answered with, `words` what it said."""

    def __init__(self, message: str, status: int, words: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.words = words


class DataDiffersError(ChromactlError):
    """Validation read the data and it is not what it should be."""

    exit_code = 4


class LockedError(ChromactlError):
    """Another run holds the database or the run's folder."""

    exit_code = 5
