"""Results of benchmarks as a table for the terminal, and as the README of what is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from windlass.core.tables import table
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.evaluate.harness.benchmark import Measure
from windlass.evaluate.harness.items import Exam

HEADERS = ("benchmark", "shots", "metric", "score", "95 % interval", "chance", "items", "failed")


def rows(exam: Exam, results: Results, measures: Sequence[Measure], label: str = "") -> list[list[str]]:
    """A row for each figure; `label`: in place of the benchmark's name."""
    failed = sum(one.failed is not None for one in results.items)
    if not measures:
        return [[label or exam.name, str(exam.shots), "", "none", "", "", "0", f"{failed:,}"]]
    found: list[list[str]] = []
    for measure in measures:
        name, shots = (label or exam.name, str(exam.shots)) if not found else ("", "")
        interval = measure.interval
        bounds = f"[{_short(interval.low)}, {_short(interval.high)}]"
        counted = f"{interval.n:,}" + (f" in {interval.clusters:,} clusters" if interval.clusters < interval.n else "")
        chance = "" if measure.chance is None else f"{measure.chance:.3f}"
        arrow = "" if measure.better == "higher" else " (lower is better)"
        score, metric = _short(interval.estimate), measure.metric + arrow
        found.append([name, shots, metric, score, bounds, chance, counted, f"{failed:,}"])
    return found


def slice_rows(exam: Exam, results: Results) -> list[list[str]]:
    """The first metric in each slice, kind by kind."""
    parts: dict[tuple[str, str], list[ItemResult]] = {}
    for one in results.items:
        for kind, name in one.slices.items():
            parts.setdefault((kind, name), []).append(one)
    found = []
    for (kind, name), items in sorted(parts.items()):
        measures = exam.benchmark.measures(items)[:1]
        part = Results(results.variant, results.digest, results.dataset, items)
        found += rows(exam, part, measures, f"  {kind}: {name}")
    return found


def failures(items: Iterable[ItemResult], most: int = 3) -> list[str]:
    """Why items have no answer, the most frequent reasons first; those that differ in numbers alone are one."""
    reasons: dict[str, list[str]] = {}
    for one in items:
        if one.failed is not None:
            reasons.setdefault(re.sub(r"\d+", "#", one.failed), []).append(one.failed)
    ordered = sorted(reasons.values(), key=len, reverse=True)
    lines = [f"{len(one):,} failed: {one[0]}" for one in ordered[:most]]
    return [*lines, f"and {len(ordered) - most} other reasons"] if len(ordered) > most else lines


def whatever(results: Results, measures: Sequence[Measure]) -> list[str]:
    """Where items failed: between what the first metric lies, whatever they would have been (Manski). Of a share."""
    values = [one.values[measures[0].metric] for one in results.items if measures and measures[0].metric in one.values]
    if not values or len(values) == len(results.items) or not set(values) <= {0.0, 1.0}:
        return []
    low, high = (sum(values) + more for more in (0, len(results.items) - len(values)))
    every = len(results.items)
    return [f"with them, {measures[0].metric} lies between {low / every:.3f} and {high / every:.3f}"]


def render(found: Iterable[list[str]]) -> str:
    return table(HEADERS, found, right=(1, 3, 4, 5, 6, 7))


def _short(number: float) -> str:
    return f"{number:.3f}" if abs(number) < 1000 else f"{number:.3g}"


def markdown(exam: Exam, results: Results, measures: Sequence[Measure]) -> str:
    """The README of kept results."""
    lines = [f"| {' | '.join(HEADERS)} |", "|---" * len(HEADERS) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(exam, results, measures)]
    listed, benchmark = "\n".join(lines), exam.benchmark
    made = "\n".join(f"- {name}: `{value}`" for name, value in results.made_with.items() if name != "files")
    files = "\n".join(f"- {name}: `{digest}`" for name, digest in exam.files.items())
    why = "".join(f"\n{line}\n" for line in failures(results.items))
    return (
        f"# {results.variant} on {exam.name}\n\n{benchmark.what}. {benchmark.source}.\n\n{listed}\n{why}\n"
        f"Intervals are cluster-robust where items hang together. Dataset {results.dataset}.\n\n"
        f"Made with:\n\n{made}\n\nData:\n\n{files}\n"
    )
