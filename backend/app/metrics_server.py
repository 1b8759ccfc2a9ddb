"""An index worker's numbers over HTTP, on a port of their own: it serves nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from app.core.errors import StartupError
from app.metrics import Metrics

log = logging.getLogger(__name__)


@contextmanager
def metrics_server(metrics: Metrics, host: str, port: int) -> Iterator[None]:
    """Answer with the metrics, whatever the path, until the block ends; with port 0 nobody is answered.

    Raises StartupError when the port is not to be had.
    """
    if port == 0:
        yield
        return
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise StartupError(
            f"INDEX_METRICS_PORT={port} of {host} cannot be used: {error.strerror}.",
            hint="Each worker on a host needs a port of its own; 0 for none.",
        ) from None
    log.info("metrics at http://%s:%d/metrics", host, port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
