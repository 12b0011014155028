"""An experiment as a table, as Markdown for a pull request, and as JUnit for a build server."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from windlass.core.tables import table
from windlass.evaluate.experiments.experiment import Comparison, Experiment
from windlass.evaluate.experiments.regressions import Change, as_text, difference, regressions
from windlass.evaluate.statistics.intervals import Interval

_LISTED = 10
_LONGEST = 600
"""Characters of an input or an output in a report; the stored experiment holds all."""


def rendered(experiment: Experiment) -> str:
    """Both variants side by side, the paired differences, the slices, and the verdict."""
    header, *rows = _rows(experiment)
    parts = [headline(experiment), table(header, rows, right=range(1, len(header)))]
    if experiment.slices:
        names, *listed = _slice_rows(experiment)
        parts.append(table(names, listed, right=range(1, len(names))))
    parts += [*_notes(experiment), _verdict(experiment)]
    return "\n\n".join(parts)


def markdown(experiment: Experiment, regressed: int = _LISTED) -> str:
    """The same with the worst regressions, each with what was asked and how the outputs differ."""
    e = experiment
    lines = [f"# {e.candidate.variant} against {e.incumbent.variant}", f"**{e.verdict.decision}**: {e.verdict.reason}"]
    lines += [headline(e), _marked(_rows(e))]
    if e.slices:
        lines += [
            f"## {e.comparisons[0].label} by slice",
            _marked(_slice_rows(e)),
            "Intervals hold for all slices together; p is corrected for their number (Holm).",
        ]
    worse = regressions(e) if e.comparisons and e.comparisons[0].metric == e.policy.primary else []
    if worse and regressed:
        lines.append(f"## Regressions: {len(worse):,} items, the worst {min(regressed, len(worse))}")
        lines += [_regression(change) for change in worse[:regressed]]
    lines += _notes(e)
    lines.append(
        f"Dataset {e.dataset}{f', split {e.incumbent.split}' if e.incumbent.split else ''}, seed {e.seed}, windlass "
        f"{e.version}. Differences are candidate minus incumbent over the same items; intervals are cluster-robust; p "
        "is of a cluster sign-flip test, corrected for the number of metrics (Holm)."
    )
    return "\n\n".join(lines) + "\n"


def junit(experiments: Sequence[Experiment]) -> bytes:
    """JUnit XML: a suite for each experiment, in it a test case for each metric that the policy judges.

    What is not GO fails; what cannot be told yet is an error, so that a build server shows the two apart.
    """
    suites = Element("testsuites")
    suites.extend(_suite(one) for one in experiments)
    xml: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return xml


def _suite(e: Experiment) -> Element:
    parts = list(e.verdict.checks) or [(e.policy.primary, e.verdict)]
    wrong = sum(part.decision == "NO-GO" for _, part in parts)
    unknown = sum(part.decision == "INCONCLUSIVE" for _, part in parts)
    name = f"{e.candidate.variant} against {e.incumbent.variant}"
    suite = Element(
        "testsuite", name=name, tests=str(len(parts)), failures=str(wrong), errors=str(unknown), skipped="0"
    )
    for metric, part in parts:
        case = SubElement(suite, "testcase", classname=name, name=metric)
        if part.decision != "GO":
            kind = "failure" if part.decision == "NO-GO" else "error"
            told = SubElement(case, kind, type=part.decision, message=part.reason)
            told.text = "\n".join(f"{c.title}: {c.incumbent:g} -> {c.candidate:g}" for c in _worst(e))
    SubElement(suite, "system-out").text = rendered(e)
    return suite


def headline(experiment: Experiment) -> str:
    e = experiment
    items = {one.item: one.group for one in e.incumbent.items}
    clusters = len(set(items.values()))
    where = f" in {clusters:,} clusters" if clusters != len(items) else ""
    repeats = f", {e.incumbent.repeats} times each" if e.incumbent.repeats > 1 else ""
    split = f"{e.incumbent.split} " if e.incumbent.split else ""
    failed = f"; {e.excluded:,} left out because a side has no value" if e.excluded else ""
    return f"{e.candidate.variant} against {e.incumbent.variant}: {len(items):,} {split}items{where}{repeats}{failed}."


def digits(values: Interval) -> int:
    """Decimals that tell values of this size apart: three for shares, fewer for milliseconds, more for cents."""
    size = abs(values.estimate)
    return 1 if size >= 10 else 5 if 0 < size < 0.01 else 3


def _rows(experiment: Experiment) -> list[list[str]]:
    sides = (experiment.incumbent.variant, experiment.candidate.variant)
    rows = [["metric", *sides, "difference", "better/worse", "p (Holm)", "missing"]]
    for one in experiment.comparisons:
        n = digits(max(one.incumbent, one.candidate, key=lambda side: abs(side.estimate)))
        rows.append(
            [
                one.label,
                f"{one.incumbent.estimate:.{n}f}",
                f"{one.candidate.estimate:.{n}f}",
                spelled(one.difference, n),
                f"{one.better:,}/{one.worse:,}",
                chance(one.p_holm),
                f"{one.missing:,}" if one.missing else "",
            ]
        )
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    return rows


def _slice_rows(experiment: Experiment) -> list[list[str]]:
    n = digits(experiment.comparisons[0].incumbent)
    rows = [["slice", "difference", "items", "p (Holm)"]]
    rows += [
        [f"{one.by}: {one.name}", spelled(one.difference, n), f"{one.difference.n:,}", chance(one.p_holm)]
        for one in experiment.slices
    ]
    return rows


def _notes(experiment: Experiment) -> list[str]:
    notes = [str(experiment.plan)] if experiment.plan else []
    for one in experiment.comparisons:
        if one.judged is not None:
            notes.append(f"{one.label} is what a judge says, {one.judged}.")
        if one.missing:
            reason, often = next(iter(one.reasons.items()))
            notes.append(f"{one.missing:,} pairs have no {one.label}; {often:,} times: {reason[:_LONGEST]}")
    first = experiment.comparisons[0] if experiment.comparisons else None
    if first is not None and first.repeats is not None:
        notes.append(_chance_of_repeats(first))
    return notes


def _chance_of_repeats(one: Comparison) -> str:
    assert one.repeats is not None
    r = one.repeats
    return (
        f"{one.label}: the difference spreads by {r.between:.3g} from item to item and by {r.within:.3g} from repeat "
        f"to repeat; more repeats could take away at most {r.share:.0%} of the interval's squared width."
    )


def _verdict(experiment: Experiment) -> str:
    return f"{experiment.verdict.decision}: {experiment.verdict.reason}"


def spelled(d: Interval, digits: int) -> str:
    return f"{d.estimate:+.{digits}f} [{d.low:+.{digits}f}, {d.high:+.{digits}f}]"


def chance(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _worst(experiment: Experiment) -> list[Change]:
    known = any(one.metric == experiment.policy.primary for one in experiment.comparisons)
    return regressions(experiment)[:_LISTED] if known else []


def _regression(change: Change) -> str:
    before, _ = change.shown
    said = [f"### {change.title}: {change.incumbent:g} to {change.candidate:g}", f"Item `{change.item}`"]
    for what, value in (("Asked", before.input), ("Wanted", before.expected)):
        if value is not None:
            said.append(f"{what}:\n\n{_fenced(as_text(value))}")
    lines = list(difference(change))
    said.append(_fenced("\n".join(lines), "diff") if lines else "The outputs are the same.")
    return "\n\n".join(said)


def _fenced(text: str, language: str = "") -> str:
    """A block that the text itself cannot end."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " …"
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}{language}\n{text}\n{ticks}"


def _marked(rows: list[list[str]]) -> str:
    header, *rest = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join([f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(r)} |" for r in rest)])
