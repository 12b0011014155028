"""Reports and experiments as plain text tables and as Markdown."""

from __future__ import annotations

from pathlib import Path

from windlass.core.artifacts import Artifact
from windlass.core.files import write_json
from windlass.core.tables import table
from windlass.evaluate.experiment import Experiment, SystemReport
from windlass.evaluate.outcomes import METRICS
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


def render_experiment(experiment: Experiment) -> str:
    """Both systems side by side, the paired differences and the verdict."""
    verdict = f"{experiment.verdict.decision}: {experiment.verdict.reason}"
    return "\n\n".join([_headline(experiment), _aligned(_rows(experiment)), verdict])


def experiment_markdown(experiment: Experiment) -> str:
    """The same as the README of a stored experiment."""
    header, *rows = _rows(experiment)
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    listed = "\n".join(lines)
    return (
        f"# {experiment.candidate.name} against {experiment.incumbent.name}\n\n{_headline(experiment)}\n\n{listed}\n\n"
        f"**{experiment.verdict.decision}**: {experiment.verdict.reason}\n\n"
        f"Dataset {experiment.dataset}, split {experiment.split}, seed {experiment.seed}. Differences are candidate "
        "minus incumbent over the same items; intervals are cluster-robust; p is a cluster sign-flip test, corrected "
        "for the number of metrics (Holm).\n"
    )


def write_experiment(folder: Path, experiment: Experiment) -> None:
    """Writes `experiment.json` and `README.md`, the files of an artifact of kind `experiment`."""
    write_json(folder / "experiment.json", experiment.to_json())
    (folder / "README.md").write_text(experiment_markdown(experiment), encoding="utf-8")


def _headline(experiment: Experiment) -> str:
    answerable = sum(item.answerable for item in experiment.items)
    clusters = len({item.cluster for item in experiment.items})
    failed = f"; {experiment.excluded:,} left out because a system failed on them" if experiment.excluded else ""
    names = f"{experiment.candidate.name} against {experiment.incumbent.name}"
    return (
        f"{names}: {len(experiment.items):,} {experiment.split} "
        f"questions ({answerable:,} with an answer) in {clusters:,} clusters{failed}."
    )


def _rows(experiment: Experiment) -> list[list[str]]:
    rows = [["metric", experiment.incumbent.name, experiment.candidate.name, "difference", "better/worse", "p (Holm)"]]
    for one in experiment.comparisons:
        d = one.difference
        digits = _digits(one.metric)
        rows.append(
            [
                METRICS[one.metric].label,
                f"{experiment.incumbent.metrics[one.metric].estimate:.{digits}f}",
                f"{experiment.candidate.metrics[one.metric].estimate:.{digits}f}",
                f"{d.estimate:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]",
                f"{one.better:,}/{one.worse:,}",
                "<0.001" if one.p_holm < 0.001 else f"{one.p_holm:.3f}",
            ]
        )
    return rows


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
