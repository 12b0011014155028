"""Exams, and how a system did on one, as plain text tables."""

from __future__ import annotations

from windlass.core.artifacts import Artifact
from windlass.core.tables import table
from windlass.evaluate.exam.outcomes import METRICS
from windlass.evaluate.exam.results import SystemReport
from windlass.evaluate.statistics.intervals import Interval

_RATES = (
    ("abstention_precision", "abstentions that were right"),
    ("abstention_recall", "unanswerable questions abstained from"),
    ("answered_accuracy", "answers that were right"),
    ("coverage", "answerable questions answered"),
)


def render_exam(exam: Artifact) -> str:
    """What an exam holds: questions per split, what did not become one and why, and its warnings."""
    card = exam.card
    rows = [["split", "answerable", "unanswerable", "clusters"]]
    for split, counts in card["counts"].items():
        rows.append([split, *(f"{counts[key]:,}" for key in rows[0][1:])])
    lines = [
        f"{exam.ref} · {exam.digest[:12]}: {card['items']:,} questions; the index leaves out "
        f"{card['withheld_documents']:,} documents",
        _aligned(rows),
        "First sentences that did not become questions:\n"
        + "\n".join(f"  {number:>7,}  {reason}" for reason, number in card["dropped"].items()),
        *(f"Warning: {warning}" for warning in card["warnings"]),
    ]
    return "\n\n".join(lines)


def render_report(report: SystemReport) -> str:
    """One system: every metric with its interval."""
    rows = [["metric", "score", "interval", "items", "clusters"]]
    for name, interval in report.metrics.items():
        rows.append([METRICS[name].label, *_cells(interval, _digits(name))])
    if report.auroc:
        rows.append(["AUROC of the confidence", *_cells(report.auroc, 3)])
    if report.aurc is not None:
        rows.append(["area under risk and coverage", f"{report.aurc:.3f}", "", f"{report.items:,}", ""])
    return f"{report.name}: {_counts(report)}\n\n{_aligned(rows)}\n\n{_abstentions(report)}"


def _digits(metric: str) -> int:
    return 1 if metric == "latency_ms" else 3


def _cells(interval: Interval, digits: int) -> list[str]:
    bounds = f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
    return [f"{interval.estimate:.{digits}f}", bounds, f"{interval.n:,}", f"{interval.clusters:,}"]


def _counts(report: SystemReport) -> str:
    errors = f", {report.errors:,} failed and not scored" if report.errors else ""
    answerable = report.selective.answerable if report.selective else 0
    return f"{report.items:,} questions scored, {answerable:,} of them with an answer{errors}"


def _abstentions(report: SystemReport) -> str:
    if report.selective is None:
        return "The system failed on every question."
    rates = []
    for name, label in _RATES:
        value = getattr(report.selective, name)
        rates.append(f"{label}: {'none to count' if value is None else f'{100 * value:.1f} %'}")
    return "\n".join(rates)


def _aligned(rows: list[list[str]]) -> str:
    return table(rows[0], rows[1:], right=range(1, len(rows[0])))
