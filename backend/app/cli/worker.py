"""`app worker`: from the outbox into the index."""

from __future__ import annotations

import asyncio
import signal

import click

from app.config import Settings
from app.startup import running


@click.command()
@click.pass_obj
def worker(settings: Settings) -> None:
    """Index what is written, until SIGTERM. With CHROMA_MODE=http any number may run, on any host."""
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    async with running(settings) as services:
        worker = services.worker()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        await worker.run()
