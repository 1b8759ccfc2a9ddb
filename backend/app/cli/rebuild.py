"""`app rebuild` and `app verify`: the index from PostgreSQL, and whether it holds what PostgreSQL says."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import click

from app.config import Settings
from app.core.chroma.bulk import PATIENCE_SECONDS
from app.core.database.direct import connected, explained
from app.core.database.place import postgres
from app.core.flow import Stop
from app.core.index.rebuild import Rebuild, Report, new_run
from app.core.index.rebuild_embed import Embedder, Keeper
from app.core.index.rebuild_fill import Tools
from app.core.index.rebuild_ledger import Ledger
from app.core.index.rebuild_site import Chosen, Site, open_site
from app.core.index.verify import EXAMPLES, METRIC, Verdict
from app.core.index.verify import verify as compare

DIFFERS, INTERRUPTED = 4, 130
SECONDS_BETWEEN_LINES = 5.0

F = TypeVar("F", bound=Callable[..., Any])


def _selecting(command: F) -> F:
    """Options that say which tenants' collections are meant."""
    for option in (
        click.option(
            "--patience",
            type=click.FloatRange(min=0),
            default=PATIENCE_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for a Chroma that is away, each time.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("--kind", type=click.Choice(["memory", "passage"]), help="Only memories, or only passages."),
        click.option("--project", help="Only this project."),
        click.option("--user", help="Only this user's projects."),
    ):
        command = option(command)
    return command


@click.command()
@_selecting
@click.option("--re-embed", is_flag=True, help="Make every embedding anew with the configured provider, and store it.")
@click.option("--dry-run", is_flag=True, help="Compare only, and say what would be done.")
@click.pass_obj
def rebuild(
    settings: Settings,
    user: str | None,
    project: str | None,
    kind: str | None,
    *,
    patience: float,
    as_json: bool,
    re_embed: bool,
    dry_run: bool,
) -> None:
    """Make the index anew from PostgreSQL. Writes and searches go on meanwhile.

    Every collection is made beside the live one, verified record by record, and then put in its place. Exit code 4:
    something is not in the index as it is in PostgreSQL, and the output says what.
    """
    with _site(settings, patience) as site:
        chosen = site.choose(user, project, kind)
        for target in set(site.targets(new_run()).values()):
            target.check()
        if dry_run:
            _dry(site, chosen, as_json=as_json)
            return
        report = _rebuild(site, chosen, re_embed=re_embed)
    click.echo(json.dumps(report.to_json()) if as_json else _described(report))
    sys.exit(0 if report.complete else DIFFERS)


@click.command()
@_selecting
@click.pass_obj
def verify(
    settings: Settings, user: str | None, project: str | None, kind: str | None, *, patience: float, as_json: bool
) -> None:
    """Compare the index with PostgreSQL, record by record. Writes and searches go on meanwhile.

    Records that index workers have not come to yet are counted as waiting. Exit code 4: others differ.
    """
    with _site(settings, patience) as site:
        verdict = _verified(site, site.choose(user, project, kind))
    click.echo(json.dumps(verdict.to_json()) if as_json else _told(verdict))
    sys.exit(0 if verdict.same else DIFFERS)


def _rebuild(site: Site, chosen: Chosen, *, re_embed: bool) -> Report:
    run = new_run()
    progress = Progress(sum(part.records for part in chosen.parts))
    with connected(site.url, "rebuild") as ledgers, connected(site.url, "embeddings") as embeddings, explained():
        ledger = Ledger(ledgers)
        model, dimension = site.embedder.model, site.settings.embedding_dimension
        tools = Tools(
            source=site.source,
            ledger=ledger,
            embedder=Embedder(site.embedder, site.stop.pause),
            keeper=Keeper(embeddings, model, dimension),
            stop=site.stop,
            advance=progress.advance,
        )
        targets = site.targets(run)
        try:
            return Rebuild(run, targets, tools, progress.line).run(
                chosen.parts, chosen.leftovers(targets), re_embed=re_embed
            )
        except BaseException:
            progress.line("cut off: what is not live yet stays as it was; run the same command again")
            if replaced := sum(target.replaced for target in set(targets.values())):
                progress.line(f"it also removes {replaced} replaced collections that are still there")
            raise


def _verified(site: Site, chosen: Chosen) -> Verdict:
    progress = Progress(sum(part.records for part in chosen.parts))
    leftovers = list(chosen.leftovers(site.targets(new_run())).values())
    live = {name for found in leftovers for name in found.live}
    verdict = compare(site, chosen.parts, live, progress.advance)
    for found in leftovers:
        verdict.unknown += found.unknown
        verdict.leftovers += [*found.ours, *found.foreign]
    return verdict


def _dry(site: Site, chosen: Chosen, *, as_json: bool) -> None:
    verdict = _verified(site, chosen)
    if as_json:
        click.echo(json.dumps({**verdict.to_json(), "status": "dry-run", "changed": bool(verdict.collections)}))
        return
    click.echo(_told(verdict))
    records = sum(one.records for one in verdict.collections)
    click.echo(f"would rebuild {len(verdict.collections)} collections of {records:,} records")


@contextmanager
def _site(settings: Settings, patience: float) -> Iterator[Site]:
    stop = Stop()
    with _heeding(stop), postgres(settings) as url, open_site(settings, url, stop, patience) as site:
        yield site


@contextmanager
def _heeding(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM end the work between two pieces of it; a second one does not wait for that."""

    def end(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, lambda *_: os._exit(INTERRUPTED))
        click.echo("ending; once more to end at once", err=True)
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Progress:
    """How far it is, on stderr: one line that changes on a terminal, elsewhere a line every few seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._begun = self._told = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._lock = threading.Lock()

    def advance(self, records: int) -> None:
        """So many records more are done. Threads may share it."""
        with self._lock:
            self._done += records
            now = time.monotonic()
            if now - self._told < (0.2 if self._terminal else SECONDS_BETWEEN_LINES):
                return
            self._told = now
            rate = self._done / (now - self._begun)
            left = f"{max(0.0, (self._total - self._done) / rate):.0f} s left" if rate else ""
            text = f"{self._done:,} of {self._total:,} records, {rate:,.0f}/s, {left}"
            click.echo(f"\r\x1b[K{text}" if self._terminal else text, err=True, nl=not self._terminal)

    def line(self, text: str) -> None:
        """Say one line."""
        with self._lock:
            click.echo(f"\r\x1b[K{text}" if self._terminal else text, err=True)


def _described(report: Report) -> str:
    lines = []
    for one in report.collections:
        if one.error:
            lines.append(f"{one.name} ({one.user}/{one.project}): NOT rebuilt: {one.error}")
        for id_, why in list(one.troubled.items())[:EXAMPLES]:
            lines.append(f"{one.name} ({one.user}/{one.project}): {id_}: {why}")
        if len(one.troubled) > EXAMPLES:
            lines.append(f"{one.name}: and {len(one.troubled) - EXAMPLES} more")
    lines += [f"left alone: {name}, of a tenant that PostgreSQL does not know" for name in report.unknown]
    lines += [f"left alone: {name}, which no rebuild made" for name in report.left_alone]
    if report.left_behind:
        lines.append(f"what was replaced is still there, the next rebuild removes it: {report.left_behind}")
    swapped = sum(one.swapped for one in report.collections)
    rate = f", {report.records / report.seconds:,.0f} a second" if report.records else ""
    lines.append(f"rebuilt {swapped} collections, {report.records:,} records in {report.seconds:.1f} s{rate}")
    return "\n".join(lines)


def _told(verdict: Verdict) -> str:
    lines = []
    for one in verdict.collections:
        counts = f"{len(one.missing)} missing, {len(one.extra)} extra, {len(one.different)} different"
        lines.append(f"{one.name} ({one.user}/{one.project}): {one.records:,} records, {counts}, {one.waiting} waiting")
        for word, ids in (("missing", one.missing), ("extra", one.extra)):
            if ids:
                lines.append(f"  {word}: {', '.join(ids[:EXAMPLES])}{', …' if len(ids) > EXAMPLES else ''}")
        if one.metric != METRIC:
            lines.append(f"  its metric is {one.metric}, and should be {METRIC}")
        lines += [f"  different: {id_} ({what})" for id_, what in list(one.different.items())[:EXAMPLES]]
    lines += [f"left alone: {name}, of a tenant that PostgreSQL does not know" for name in verdict.unknown]
    lines += [f"left over: {name}" for name in verdict.leftovers]
    records = sum(one.records for one in verdict.collections)
    word = "the index holds what PostgreSQL says" if verdict.same else "the index differs; run: app rebuild"
    lines.append(f"compared {records:,} records in {verdict.seconds:.1f} s: {word}")
    return "\n".join(lines)
