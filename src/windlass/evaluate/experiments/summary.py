"""How one variant did: every metric with its interval, by slices if asked for, and the items it did worst on."""

from __future__ import annotations

from windlass.core.tables import table
from windlass.evaluate.experiments import naming
from windlass.evaluate.experiments.regressions import as_text
from windlass.evaluate.experiments.reports import digits
from windlass.evaluate.experiments.results import JUDGES, ItemResult, Results
from windlass.evaluate.experiments.single import Column, column
from windlass.evaluate.judges.trust import trusts
from windlass.evaluate.policy import ERROR_LIMIT
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.shares import score_interval

_LONGEST = 200


def summarised(results: Results, misses: int = 5) -> str:
    """A table, what has no value and why, and the `misses` worst items by the first scored metric."""
    columns = {name: column(results, name) for name in _order(results)}
    rows = []
    for name, one in columns.items():
        if not one.values:
            rows.append([naming.label(name), "", "", "0", str(one.missing)])
            continue
        d = _interval(one, name)
        n = digits(d)
        rows.append(
            [
                naming.label(name),
                f"{d.estimate:.{n}f}",
                f"[{d.low:.{n}f}, {d.high:.{n}f}]",
                f"{d.n:,}",
                f"{one.missing:,}",
            ]
        )
    items = len({one.item for one in results.items})
    repeats = f", {results.repeats} times each" if results.repeats > 1 else ""
    parts = [
        f"{results.variant}: {items:,} items{repeats}{_cost(results)}.",
        table(["metric", "mean", "95% interval", "items", "no value"], rows, right=range(1, 5)),
    ]
    for name, one in columns.items():
        if one.missing:
            reason, often = next(iter(one.reasons.items()))
            said = f"{one.missing:,} answers have no {naming.label(name)}; {often:,} times: {reason[:_LONGEST]}"
            if one.missing > ERROR_LIMIT * one.asked:
                said += f"\nThat is more than {ERROR_LIMIT:.0%}: a comparison by it would decide nothing."
            parts.append(said)
    if JUDGES in results.made_with:
        parts += [f"{naming.label(name)} is what a judge says, {one.worth}." for name, one in trusts([results]).items()]
    parts += _worst(results, next(iter(columns), None), misses)
    return "\n\n".join(parts)


def _order(results: Results) -> list[str]:
    """What was scored first, then what it took."""
    return list(dict.fromkeys([*results.scorers, *results.metrics]))


def _interval(one: Column, name: str) -> Interval:
    return score_interval(one.values, one.clusters).within(*naming.bounds(name))


def _cost(results: Results) -> str:
    known = [one.values["cost_usd"] for one in results.items if "cost_usd" in one.values]
    return f", ${sum(known):.4f}" if len(known) == len(results.items) else ", cost not known of all"


def _worst(results: Results, metric: str | None, most: int) -> list[str]:
    if metric is None or most < 1:
        return []
    sign = 1.0 if naming.direction(metric) == "higher" else -1.0
    scored = [one for one in results.items if metric in one.values]
    if not scored:
        return []
    best = max(sign * one.values[metric] for one in scored)
    wrong = sorted(
        (one for one in scored if sign * one.values[metric] < best), key=lambda one: sign * one.values[metric]
    )
    return [_item(one, metric) for one in wrong[:most]]


def _item(one: ItemResult, metric: str) -> str:
    lines = [f"  {_short(one.input)}"]
    if one.expected is not None:
        lines.append(f"  expected {_short(one.expected)}")
    return "\n".join([*lines, f"  but      {_short(one.output)}", f"  {naming.label(metric)} {one.values[metric]:g}"])


def _short(value: object) -> str:
    text = " ".join(as_text(value).split())
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
