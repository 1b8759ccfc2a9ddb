"""The report for people, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chromactl.validate.findings import CheckResult, Offender, Status
from chromactl.validate.report import ValidationReport

NEXT_STEPS = {
    Status.PASSED: "Safe to cut over.",
    Status.WARNING: "Review the warnings below, then decide: cut over, or correct and migrate again.",
    Status.FAILED: "Roll back: the new side is not what it should be.",
}


def render(report: ValidationReport) -> str:
    """The whole report."""
    verdict = report.verdict
    divergence = verdict.semantic_divergence_percentage
    lines = [
        "# Validation report",
        "",
        f"**{verdict.status.value}** — {NEXT_STEPS[verdict.status]}",
        "",
        *_table(
            ("", ""),
            [
                ("Overall status", verdict.status.value),
                ("Rollback triggered", "YES" if verdict.rollback_triggered else "NO"),
                ("Rollback reason", verdict.rollback_reason or "-"),
                ("Data loss", f"{verdict.data_loss_percentage:g} %"),
                ("Semantic divergence", "not measured" if divergence is None else f"{divergence:g} %"),
                ("Old", f"{report.old.location.text} ({report.old.tenant}/{report.old.database})"),
                ("New", f"{report.new.location.text} ({report.new.tenant}/{report.new.database})"),
                ("Profile", report.profile),
                ("Started", report.started.isoformat(timespec="seconds")),
                ("Elapsed", f"{report.seconds:.1f} s"),
            ],
        ),
        "",
    ]
    if len(verdict.reasons) > 1:
        lines += ["All reasons for a rollback:", ""]
        lines += [f"- {_safe(reason)} ({_safe(condition)})" for condition, reason in verdict.reasons.items()] + [""]
    lines += ["## Tests", ""]
    lines += _table(
        ("#", "test", "status", "result"),
        [(test.number, test.title, test.status.value, test.summary) for test in report.tests],
    )
    lines += ["", "## Collections", ""]
    lines += _table(
        ("collection", "from", "expected", "new", "missing", "extra"),
        [
            (
                name,
                ", ".join(state.target.sources),
                f"{state.expected:,}",
                f"{state.ids:,}" if state.collection is not None else "not there",
                f"{len(state.missing):,}",
                f"{len(state.extra):,}",
            )
            for name, state in report.whole.targets.items()
        ],
    )
    for test in report.tests:
        lines += _test(test, report.files["offenders"].name)
    return "\n".join(lines) + "\n"


def _test(test: CheckResult, offenders: str) -> list[str]:
    lines = ["", f"## {test.number}. {test.title}: {test.status.value}", "", f"{_safe(test.summary)}."]
    lines += [f"\n**What to do:** {_safe(test.hint)}"] if test.hint else []
    lines += [""] + [f"- {_safe(note)}" for note in test.notes] if test.notes else []
    if test.findings.first:
        more = test.findings.total - len(test.findings.first)
        lines += ["", *_offenders(test.findings.first)]
        lines += ["", f"and {more:,} more, all in `{offenders}`"] if more else []
    lines += ["", *_table(("number", "value"), list(_numbers(test.numbers)))]
    return lines


def _offenders(found: Iterable[Offender]) -> list[str]:
    return _table(
        ("collection", "id", "what", "field", "expected", "is"),
        [(one.collection, one.id, one.what, one.field, one.expected, one.actual) for one in found],
    )


def _numbers(numbers: dict[str, Any], before: str = "") -> Iterable[tuple[str, object]]:
    for name, value in numbers.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{before}{name} / ")
        elif isinstance(value, list):
            yield f"{before}{name}", ", ".join(map(str, value)) or "-"
        else:
            yield f"{before}{name}", "-" if value is None else value


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        *(f"| {' | '.join(_safe(cell) for cell in row)} |" for row in rows),
    ]


def _safe(value: object) -> str:
    """Text that Markdown takes as nothing but text: ids and values come from the data."""
    text = " ".join(str(value).split())
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}") if character in "\\`*[]|" else text
    return text.replace("<", "&lt;").replace(">", "&gt;")
