"""The report as one self-contained HTML page: no script, nothing from the network, all data escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from string import Template

import numpy as np

from chromactl.validate import svg
from chromactl.validate.findings import CheckResult, Offender, Status
from chromactl.validate.markdown import NEXT_STEPS
from chromactl.validate.report import ValidationReport

_SHARES = [number / 10 for number in range(11)]
_COLUMNS = ("collection", "id", "what", "field", "expected", "is")
_NAMED = 6
"""Collections whose vector lengths get a chart of their own."""


def render(report: ValidationReport) -> str:
    """The whole page."""
    template = Template(resources.files("chromactl.validate").joinpath("page.html").read_text(encoding="utf-8"))
    verdict = report.verdict
    divergence = verdict.semantic_divergence_percentage
    facts = [
        ("data loss", f"{round(verdict.data_loss_percentage, 2):g} %"),
        ("semantic divergence", "not measured" if divergence is None else f"{round(divergence, 2):g} %"),
        ("records", f"{report.whole.plan.records:,} → {sum(one.ids for one in report.whole.targets.values()):,}"),
        ("elapsed", f"{report.seconds:.1f} s"),
        ("rollback", "yes" if verdict.rollback_triggered else "no"),
    ]
    return template.substitute(
        status=verdict.status.value,
        status_class=verdict.status.value.lower(),
        advice=escape(NEXT_STEPS[verdict.status]),
        reasons="".join(
            f"<li>{escape(what)} <small>({escape(why)})</small></li>" for why, what in verdict.reasons.items()
        ),
        facts="".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts),
        old=escape(f"{report.old.location.text} · {report.old.tenant}/{report.old.database}"),
        new=escape(f"{report.new.location.text} · {report.new.tenant}/{report.new.database}"),
        profile=escape(report.profile),
        started=escape(report.started.isoformat(sep=" ", timespec="seconds")),
        charts="".join(_charts(report)),
        tests="".join(_test(test) for test in report.tests),
    )


def _charts(report: ValidationReport) -> Iterable[str]:
    states = report.whole.targets.items()
    rows = [(name, float(state.expected), float(state.ids)) for name, state in states]
    yield _figure("Records per collection", "expected from the old side, and on the new one", svg.bars(rows, "Records"))
    asked = [one for one in report.asked if not one.error]
    if asked:
        overlap = _counts([one.overlap for one in asked])
        yield _figure(
            "Overlap of the answers",
            "queries by Jaccard overlap of the first ten results; 1 is the same answer",
            svg.histogram(_SHARES, [], overlap, "Overlap"),
        )
        old = _counts([one.recall_old for one in asked if one.recall_old is not None])
        new = _counts([one.recall_new for one in asked])
        yield _figure(
            "Recall",
            "queries by the share of the exact answer that each side found",
            svg.histogram(_SHARES, old, new, "Recall"),
        )
        yield _latency(report)
    for name, histogram in list(report.norms.items())[:_NAMED]:
        yield _figure(
            f"Vector lengths: {name}",
            "vectors by their length",
            svg.histogram(histogram.edges, histogram.old, histogram.new, f"Vector lengths of {name}"),
        )


def _latency(report: ValidationReport) -> str:
    sides = [
        [value for one in report.asked for value in one.old_ms],
        [value for one in report.asked for value in one.new_ms],
    ]
    limit = max(0.1, *(float(np.percentile(side, 99)) for side in sides if side))
    edges = np.linspace(0.0, limit, 21)
    counts = [np.histogram(np.minimum(side, limit), edges)[0].tolist() for side in sides]
    words = ", ".join(
        f"{name} p50 {np.percentile(side, 50):.1f}, p95 {np.percentile(side, 95):.1f} ms"
        for name, side in zip(("old", "new"), sides, strict=True)
        if side
    )
    return _figure(
        "Latency",
        f"requests by milliseconds; {words}",
        svg.histogram(edges.tolist(), counts[0], counts[1], "Latency", " ms"),
    )


def _counts(values: Sequence[float]) -> list[int]:
    counts: list[int] = np.histogram(values, _SHARES)[0].tolist()
    return counts


def _figure(title: str, what: str, chart: str) -> str:
    return f"<figure><figcaption><b>{escape(title)}</b><br>{escape(what)}</figcaption>{chart}</figure>"


def _test(test: CheckResult) -> str:
    opened = " open" if test.status in (Status.FAILED, Status.WARNING) else ""
    parts = [
        f"<details{opened}><summary><span class='badge {test.status.value.lower()}'>{test.status.value}</span> "
        f"{test.number}. {escape(test.title)}<span class='said'>{escape(test.summary)}</span></summary>"
    ]
    if test.hint:
        parts.append(f"<p><b>What to do:</b> {escape(test.hint)}</p>")
    if test.notes:
        parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in test.notes) + "</ul>")
    if test.findings.first:
        parts.append(_table(test.title, test.findings.first))
        if more := test.findings.total - len(test.findings.first):
            parts.append(f"<p>and {more:,} more, in the file of offenders beside this report</p>")
    if len(parts) == 1:
        parts.append("<p>Nothing else to say.</p>")
    return "".join(parts) + "</details>"


def _table(title: str, offenders: Sequence[Offender]) -> str:
    """The offenders, without columns that none of them has anything in."""
    rows = [(one.collection, one.id, one.what, one.field, one.expected, one.actual) for one in offenders]
    used = [column for column in range(len(_COLUMNS)) if any(row[column] for row in rows)]
    head = "".join(f"<th scope='col'>{_COLUMNS[column]}</th>" for column in used)
    body = "".join("<tr>" + "".join(f"<td>{escape(row[column])}</td>" for column in used) + "</tr>" for row in rows)
    return (
        f"<div class='scroll' tabindex='0' role='region' aria-label='{escape(title)}: offenders'>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
