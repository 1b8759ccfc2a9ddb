"""`app worker`: from the outbox into the index."""

from __future__ import annotations

import asyncio
import logging
import signal

import click

from app.config import Settings
from app.core.index.worker import Worker
from app.metrics_server import metrics_server
from app.startup import running

log = logging.getLogger(__name__)


@click.command()
@click.pass_obj
def worker(settings: Settings) -> None:
    """Index what is written, until SIGTERM. With CHROMA_MODE=http any number may run, on any host.

    SIGTERM and Ctrl-C finish the batches in hand; the exit code is 0, and 130 after Ctrl-C. A second signal ends the
    worker at once, which is safe too: others do again what it had in hand.
    """
    if asyncio.run(_work(settings)) is signal.SIGINT:
        raise click.Abort


async def _work(settings: Settings) -> signal.Signals | None:
    """Index until a signal comes, and return it."""
    stop = _Stop()
    async with running(settings) as services:
        targets = dict.fromkeys([services.stores.memory.session.target, services.stores.rag.session.target])
        log.info(
            "indexing from %s into %s: batches of %d, %d at once",
            services.database.target,
            " and ".join(map(str, targets)),
            settings.index_batch_size,
            settings.index_concurrency,
        )
        worker = services.worker()
        stop.has(worker)
        with metrics_server(services.metrics, settings.index_metrics_host, settings.index_metrics_port):
            await worker.run()
    log.info("stopped")
    return stop.number


class _Stop:
    """The first signal stops the worker; the second does what signals do."""

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self._worker: Worker | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._came, number)

    def has(self, worker: Worker) -> None:
        """Have the worker stopped; also when the signal has come already."""
        self._worker = worker
        if self.number is not None:
            worker.stop()

    def _came(self, number: signal.Signals) -> None:
        self.number = number
        log.info("stopping after the batches in hand; a second signal ends it at once")
        for each in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        if self._worker is not None:
            self._worker.stop()
