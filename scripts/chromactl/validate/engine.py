"""A validation from end to end."""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import orjson
from numpy.typing import NDArray

from chromactl import files
from chromactl.console import Console
from chromactl.embedding.provider import Embedder, HashEmbedder
from chromactl.errors import UsageError
from chromactl.location import DATABASES
from chromactl.migrate.passage import Passage
from chromactl.migrate.plan import make_plan
from chromactl.stores.opening import open_source
from chromactl.validate import markdown, page
from chromactl.validate.checks.base import Check
from chromactl.validate.checks.citations import CitationCheck
from chromactl.validate.checks.counts import CountCheck
from chromactl.validate.checks.distribution import DistributionCheck
from chromactl.validate.checks.duplicates import DuplicateCheck
from chromactl.validate.checks.embeddings import EmbeddingCheck
from chromactl.validate.checks.field_types import FieldTypeCheck
from chromactl.validate.checks.metadata import MetadataCheck
from chromactl.validate.checks.semantic import SemanticCheck
from chromactl.validate.config import ValidateConfig
from chromactl.validate.findings import OffenderFile
from chromactl.validate.part import Extra, Part, Refusals
from chromactl.validate.queries import read_queries
from chromactl.validate.report import Histogram, ValidationReport
from chromactl.validate.semantic import Interview
from chromactl.validate.survey import Survey
from chromactl.validate.verdict import judge

log = logging.getLogger(__name__)

BINS = 25
"""Of a histogram of vector lengths; odd, so that vectors of one length all fall into the bin in the middle."""


def validate(
    config: ValidateConfig, console: Console, log_file: Path | None = None, embedder: Embedder | None = None
) -> ValidationReport:
    """Compare both sides, write the reports, and say what it came to; without an embedder, the hashing one is taken.

    Raises:
        UsageError, PreconditionError, LockedError: nothing could be compared; no report is written.
        ChromactlError: it broke off; no report is written.
    """
    if config.old.place == config.new.place:
        raise UsageError("old and new are the same database; there is nothing to compare")
    started, begun = datetime.now(UTC), perf_counter()
    queries = read_queries(config.test_queries) if config.test_queries is not None else []
    files.make_folder(config.output.parent)
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(contextlib.closing(open_source(config.old)))
        new = stack.enter_context(contextlib.closing(open_source(config.new)))
        offenders = stack.enter_context(OffenderFile(config.beside(".offenders.jsonl")))
        plan = make_plan(config.migration, old)
        console.line(f"Total chunks to compare: {plan.records:,} of {len(plan.collections)} collections")
        passage = Passage(config.profile, plan)
        embeds, limited = embedder or HashEmbedder(), bool(config.collections)
        interview = Interview(plan, passage, old, queries, config.stored_queries, embeds, limited=limited)
        embeddings = EmbeddingCheck(offenders.write)
        semantic = SemanticCheck(offenders.write, config.thresholds)
        checks: list[Check] = [
            CountCheck(offenders.write),
            embeddings,
            MetadataCheck(offenders.write),
            semantic,
            DistributionCheck(offenders.write),
            DuplicateCheck(offenders.write),
            FieldTypeCheck(offenders.write, config.profile),
            CitationCheck(offenders.write, config.profile),
        ]
        observers = _Observers(checks, interview)
        has_index = config.new.location.kind in DATABASES
        survey = Survey(plan, passage, config.profile, old, new, has_index=has_index)
        with console.progress(plan.records, "compare") as advance:
            whole = survey.look(config.workers, advance, observers.refused, observers.seen, observers.extra)
        console.line(f"compared {whole.expected:,} chunks in {perf_counter() - begun:.1f} s; asking both sides")
        semantic.take(interview.ask(new, whole, config.old.location.kind, config.new.location.kind), interview.notes)
        for check in checks:
            check.finish(whole)
        results = [check.result() for check in checks]
    report = ValidationReport(
        old=config.old,
        new=config.new,
        profile=config.profile.name,
        thresholds=config.thresholds,
        started=started,
        seconds=perf_counter() - begun,
        verdict=judge(results, whole.lost, semantic.divergence, config.thresholds),
        tests=results,
        whole=whole,
        asked=semantic.asked,
        norms={name: _histogram(sides["old"], sides["new"]) for name, sides in embeddings.norms.items()},
    )
    _write(config, report, offenders, log_file)
    return report


class _Observers:
    """All that watch the pass."""

    def __init__(self, checks: list[Check], interview: Interview) -> None:
        self._checks = checks
        self._interview = interview

    def refused(self, refusals: Refusals) -> None:
        for check in self._checks:
            check.observe_refusals(refusals)

    def seen(self, part: Part) -> None:
        for check in self._checks:
            check.observe(part)
        self._interview.observe(part)

    def extra(self, extra: Extra) -> None:
        for check in self._checks:
            check.observe_extra(extra)


def _histogram(old: NDArray[np.float32], new: NDArray[np.float32]) -> Histogram:
    both = np.concatenate([old, new]).astype(np.float64)
    both = both[np.isfinite(both)]
    low, high = (float(both.min()), float(both.max())) if len(both) else (0.0, 1.0)
    if high - low < 1e-3 * max(high, 1e-30):  # all of one length, as of normalised vectors: show them in the middle
        low, high = low * 0.9, max(high * 1.1, 1e-6)
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(side[np.isfinite(side)], edges)[0].tolist() for side in (old, new)]
    return Histogram([float(f"{edge:.6g}") for edge in edges], *counts)


def _write(config: ValidateConfig, report: ValidationReport, offenders: OffenderFile, log_file: Path | None) -> None:
    report.files = {
        "markdown": config.output,
        "json": config.beside(".json"),
        "html": config.beside(".html"),
        "offenders": offenders.path,
    }
    if log_file is not None:
        report.files["log"] = log_file
    files.write_atomically(config.output, markdown.render(report).encode())
    files.write_atomically(report.files["html"], page.render(report).encode())
    body = orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    files.write_atomically(report.files["json"], body)
    log.info("reports: %s", ", ".join(str(path) for path in report.files.values()))
