"""What the service counts and measures of itself, in Prometheus's form.

With several workers each would tell its own numbers: where PROMETHEUS_MULTIPROC_DIR is set, they share them in files
there, and /metrics adds them up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.index.batch import Outcome

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
if not os.environ.get(DIRECTORY, "-"):
    del os.environ[DIRECTORY]  # the library would take an empty one for the working directory

from prometheus_client import (  # noqa: E402 (it looks at the environment when it is imported)
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402

from app.core.errors import StartupError  # noqa: E402

PREFIX = "chroma_stack"
# What can become of a record in a batch, as `Outcome` names it.
OUTCOMES = ("indexed", "removed", "postponed", "buried", "held")
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BATCH_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)

disable_created_metrics()  # type: ignore[no-untyped-call]


def shared_directory() -> Path | None:
    """Where workers share their numbers, made when it is not there; StartupError when it cannot be."""
    if DIRECTORY not in os.environ:
        return None
    directory = Path(os.environ[DIRECTORY])
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise StartupError(
            f"{DIRECTORY}={directory} cannot be used: {error.strerror}.",
            hint="Name a directory that this user may write.",
        ) from None
    return directory


class Metrics:
    """The numbers of one process. Made once for each."""

    def __init__(self) -> None:
        self._shared = shared_directory()
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_http_requests_total", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            f"{PREFIX}_http_request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["method", "route"],
            registry=registry,
            buckets=_REQUEST_SECONDS,
        )
        self._searches = Counter(f"{PREFIX}_searches_total", "Searches answered.", ["kind"], registry=registry)
        self._degraded = Counter(
            f"{PREFIX}_searches_degraded_total",
            "Searches answered from PostgreSQL, because Chroma could not be asked.",
            ["kind"],
            registry=registry,
        )
        self._refused = Counter(
            f"{PREFIX}_api_keys_refused_total", "Requests without a valid key.", ["reason"], registry=registry
        )
        self._chroma_up = Gauge(
            f"{PREFIX}_chroma_up",
            "Whether Chroma answered the last call (1) or not (0).",
            ["store"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._chroma_seconds = Gauge(
            f"{PREFIX}_chroma_last_call_seconds",
            "How long Chroma's last answer took, or the wait for it.",
            ["store"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(method, route).observe(seconds)

    def searched(self, kind: str, *, degraded: bool) -> None:
        """A search of memories or passages is answered."""
        self._searches.labels(kind).inc()
        if degraded:
            self._degraded.labels(kind).inc()

    def refused(self, reason: str) -> None:
        """Somebody came without a valid key: missing, malformed or unknown."""
        self._refused.labels(reason).inc()

    def chroma(self, store: str) -> Callable[[bool, float], None]:
        """To be told of each call to this store: whether it was answered, and in how many seconds."""

        def called(answered: bool, seconds: float) -> None:
            self._chroma_up.labels(store).set(answered)
            self._chroma_seconds.labels(store).set(seconds)

        return called

    @cached_property
    def index(self) -> IndexMetrics:
        """The numbers of an index worker in this process; absent where there is none."""
        return IndexMetrics(self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """The numbers of this process alone."""
        return self._registry

    def exposition(self, more: Iterable[Metric] = ()) -> bytes:
        """All of it in Prometheus's text format, with the workers that share numbers, and more. Blocks for a moment."""
        everything = CollectorRegistry()
        if self._shared is None:
            everything.register(_These(self._registry.collect()))
        else:
            everything.register(_Shared(self._shared))
        everything.register(_These(more))
        return generate_latest(everything)


class _Shared(Collector):
    """What all processes have in their files. One that begins at this moment may have an empty file for an instant."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        files = [str(path) for path in self._directory.glob("*.db") if path.stat().st_size > 0]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]

    def describe(self) -> list[Metric]:
        """Nothing: the files are read when somebody asks."""
        return []


class _These(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics

    def describe(self) -> list[Metric]:
        """Nothing: registering must not use them up."""
        return []


class IndexMetrics:
    """The numbers of an index worker."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._batches = Counter(f"{PREFIX}_index_batches_total", "Batches finished.", registry=registry)
        self._records = Counter(
            f"{PREFIX}_index_records_total", "Records taken from the outbox.", ["outcome"], registry=registry
        )
        self._batch_seconds = Histogram(
            f"{PREFIX}_index_batch_duration_seconds",
            "Time for a batch, from its taking to its end.",
            registry=registry,
            buckets=_BATCH_SECONDS,
        )
        self._lag = Histogram(
            f"{PREFIX}_index_lag_seconds",
            "Time from a record's change to its being in the index.",
            registry=registry,
            buckets=_LAG_SECONDS,
        )

    def batch(self, outcome: Outcome, seconds: float) -> None:
        """A batch is over, after so many seconds."""
        self._batches.inc()
        self._batch_seconds.observe(seconds)
        for name in OUTCOMES:
            if number := getattr(outcome, name):
                self._records.labels(name).inc(number)
        for lag in outcome.lags:
            self._lag.observe(max(lag, 0.0))  # two clocks are involved
