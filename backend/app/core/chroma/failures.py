"""What chromadb and httpx raise, in words that say what happened and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import httpx
from chromadb.errors import (
    AuthorizationError,
    ChromaAuthError,
    ChromaError,
    InvalidArgumentError,
    InvalidDimensionException,
    NotFoundError,
    RateLimitError,
)

from app.core.chroma.quota import refusal
from app.core.errors import (
    ChromaFailed,
    ChromaRefusedToken,
    ChromaTimeout,
    ChromaUnavailable,
    CollectionUnwritable,
    ConnectionBroken,
    DimensionMismatch,
    FilterRefused,
    NotAChroma,
    RecordsRefused,
    ServiceError,
)

_TOKEN_HINT = "Check CHROMA_AUTH_TOKEN or CHROMA_AUTH_TOKEN_FILE, and whether the token was rotated."  # noqa: S105
# 1.x, with 422 and no name of an error, of a value that its metadata has no form for
_NO_FORM = "Failed to deserialize the JSON body"
_ADDRESS_HINT = "Check CHROMA_HOST, CHROMA_PORT and CHROMA_SSL."


class Purpose(Enum):
    """What a call was for: an error about what was sent is the caller's who sent it."""

    LOOK = auto()
    FILTERED = auto()  # with a filter of the caller
    WRITE = auto()  # with records


@dataclass(frozen=True)
class Target:
    """What a client talks to, in words: `Chroma at http://localhost:8000`, or a directory."""

    label: str
    remote: bool

    def __str__(self) -> str:
        return self.label


def is_not_found(error: BaseException) -> bool:
    """Whether Chroma says that the collection does not exist: 1.x with 404, 0.5 and 0.6 with 400."""
    if isinstance(error, NotFoundError):
        return True
    text = str(error)
    return "does not exist" in text and (isinstance(error, InvalidArgumentError) or '"InvalidCollection"' in text)


def is_panic(error: BaseException) -> bool:
    """Whether the Rust bindings panicked. Their exception is not an Exception, so it is known by name."""
    return type(error).__name__ == "PanicException"


def translate(error: BaseException, target: Target, purpose: Purpose = Purpose.LOOK) -> ServiceError:
    """The service's error for one of chromadb's."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, httpx.HTTPError):
        return _transport(error, target)
    if isinstance(error, (ChromaAuthError, AuthorizationError)):
        return ChromaRefusedToken(f"{target} refused the token.", hint=_TOKEN_HINT)
    if isinstance(error, InvalidDimensionException) or "embedding with dimension" in str(error):
        return DimensionMismatch(f"{target} refused the query's vector: {_short(error)}.")
    if purpose is Purpose.FILTERED and isinstance(error, InvalidArgumentError):
        return FilterRefused(f"{target} refused the filter: {_short(error)}.")
    if purpose is Purpose.WRITE and (refused := refusal(error)) is not None and refused.of_the_whole:
        return CollectionUnwritable(f"{target} takes no more: {_short(error)}.", hint="Have the quota raised.")
    if purpose is Purpose.WRITE and _is_about_records(error):
        return RecordsRefused(f"{target} refused the records: {_short(error)}.")
    if not target.remote and purpose is Purpose.WRITE and isinstance(error, ChromaError):
        return ChromaFailed(f"{target} failed ({error.name()}): {_short(error)}.", hint="See whether its disk is full.")
    # an error of Chroma's own is logged, and what it says of a filter may quote that
    words = "" if purpose is Purpose.FILTERED else f": {_short(error)}"
    if not target.remote:
        return ChromaUnavailable(
            f"{target} cannot be used: {type(error).__name__}{words}.",
            hint="See whether it is a database of this Chroma version or older, writable, and its disk not full.",
        )
    if isinstance(error, RateLimitError):
        return ChromaUnavailable(f"{target} wants fewer requests (HTTP 429).", hint="Run fewer index workers.")
    if isinstance(error, ChromaError):
        return ChromaFailed(f"{target} answered with an error ({error.name()}){words}.", hint="Look into its log.")
    if isinstance(error.__context__, httpx.HTTPStatusError):
        return _status(error.__context__.response.status_code, target)
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError)):
        # an answer that is not JSON, or JSON of another shape
        return NotAChroma(f"{target} answers, but not as a Chroma server would.", hint=_ADDRESS_HINT)
    return ChromaUnavailable(f"{target} failed: {type(error).__name__}{words}.", hint="Look into its log.")


def _is_about_records(error: BaseException) -> bool:
    """Whether what was sent is at fault: refused as invalid (400, 422), as too much (413), or by a quota."""
    if isinstance(error, InvalidArgumentError) or _NO_FORM in str(error) or refusal(error) is not None:
        return True
    cause = error.__context__
    return isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code in (400, 413, 422)


def _transport(error: httpx.HTTPError, target: Target) -> ChromaUnavailable:
    if isinstance(error, httpx.TimeoutException):
        return ChromaTimeout(
            f"{target} did not answer in time.",
            hint="See whether it is overloaded or stopped; CHROMA_TIMEOUT_SECONDS is the limit.",
        )
    if isinstance(error, httpx.ConnectError):
        return ChromaUnavailable(
            f"{target} cannot be reached: {_short(error)}.", hint=f"See whether it runs. {_ADDRESS_HINT}"
        )
    if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
        return ConnectionBroken(
            f"The connection to {target} broke: {_short(error)}.",
            hint=f"See whether it runs and speaks HTTP. {_ADDRESS_HINT}",
        )
    return ChromaUnavailable(f"{target} cannot be asked: {_short(error)}.", hint=_ADDRESS_HINT)


def _status(status: int, target: Target) -> ChromaUnavailable:
    if status in (401, 403):
        return ChromaRefusedToken(f"{target} refused the token (HTTP {status}).", hint=_TOKEN_HINT)
    if status >= 500 or status == 429:
        return ChromaUnavailable(f"{target} answered HTTP {status}.", hint="Look into its log.")
    return NotAChroma(
        f"{target} answers HTTP {status} where a Chroma server (0.5 or newer) would not.", hint=_ADDRESS_HINT
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
