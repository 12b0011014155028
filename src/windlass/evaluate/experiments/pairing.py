"""Two variants' results side by side: what may be compared at all, and one metric as paired columns.

With repeats, item and repeat are paired and the differences averaged item by item: asking again narrows what the
model's own chance adds, but it is the number of items that says how far the result carries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import ItemResult, Results, shortened

Pair = tuple[ItemResult, ItemResult]
ONE_SIDED = "only one of the two has a value"
_NAMED = 3


def matched(before: Results, after: Results) -> list[Pair]:
    """Every (item, repeat) with what both made of it, in the order of `before`.

    Raises `InputError` for other datasets or splits, for item sets that differ, and for a metric that was computed by
    other code: nothing of that is a difference between the variants.
    """
    for what, here, there in (("dataset", before.dataset, after.dataset), ("split", before.split, after.split)):
        if here != there:
            raise InputError(
                f"{before.variant} was evaluated on {what} {here[:12]}, {after.variant} on {there[:12]}.",
                f"Evaluate both on the same {what}.",
            )
    _same_scorers(before, after)
    others = {(one.item, one.repeat): one for one in after.items}
    keys = [(one.item, one.repeat) for one in before.items]
    lacking = ((after.variant, [key for key in keys if key not in others]), (before.variant, others.keys() - set(keys)))
    for variant, absent in lacking:
        if absent:
            raise InputError(
                f"{variant} lacks {_named(absent)} of what the other has.",
                "Evaluate both on the same items and repeats.",
            )
    pairs = [(one, others[one.item, one.repeat]) for one in before.items]
    for a, b in pairs:
        if a.group != b.group:
            raise InputError(
                f"Item '{shortened(a.item)}' belongs to cluster '{shortened(a.group)}' on one side and "
                f"'{shortened(b.group)}' on the other.",
                "Evaluate both on the same dataset.",
            )
    return pairs


@dataclass(frozen=True, slots=True)
class Paired:
    """One metric on the items of which both have a value: means over repeats, by item."""

    items: Sequence[str]
    clusters: Sequence[str]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    missing: int
    """Pairs that should have a value on both sides and do not."""
    reasons: Mapping[str, int]
    """Why, most frequent first."""
    pairs: int
    """Those that have the metric, or should."""
    repeats: Repeats | None
    """None where no item has two repeats."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """Where the spread of the differences comes from (one-way random effects, by the method of moments)."""

    number: float
    """Repeats of an item, on average."""
    between: float
    """Standard deviation of the difference from item to item, without chance."""
    within: float
    """Standard deviation of it from repeat to repeat of one item: the model's own chance."""

    @property
    def share(self) -> float:
        """Part of the squared width of the interval that more repeats could take away; the rest needs more items."""
        chance = self.within**2 / self.number
        whole = self.between**2 + chance
        return chance / whole if whole else 0.0


def paired(pairs: Sequence[Pair], metric: str) -> Paired:
    """The metric's columns. A pair with an error on either side is left out and counted."""
    found: dict[str, list[tuple[float, float]]] = {}
    clusters: dict[str, str] = {}
    reasons: Counter[str] = Counter()
    number = 0
    for a, b in pairs:
        problem = a.problem(metric) or b.problem(metric)
        has = (metric in a.values) + (metric in b.values)
        if not problem and not has:
            continue  # it does not apply
        number += 1
        if problem or has == 1:
            reasons[problem or ONE_SIDED] += 1
            continue
        found.setdefault(a.item, []).append((a.values[metric], b.values[metric]))
        clusters.setdefault(a.item, a.group)
    means = np.array([np.mean(one, axis=0) for one in found.values()], dtype=np.float64).reshape(-1, 2)
    return Paired(
        list(found),
        list(clusters.values()),
        means[:, 0],
        means[:, 1],
        reasons.total(),
        dict(reasons.most_common()),
        number,
        _repeats([np.array([b - a for a, b in one]) for one in found.values()]),
    )


def _repeats(differences: Sequence[NDArray[np.float64]]) -> Repeats | None:
    freedom = sum(one.size - 1 for one in differences)
    if freedom == 0 or len(differences) < 2:
        return None
    within = sum(float(np.sum((one - one.mean()) ** 2)) for one in differences) / freedom
    by_chance = within * float(np.mean([1 / one.size for one in differences]))
    between = float(np.var([one.mean() for one in differences], ddof=1)) - by_chance
    number = float(np.mean([one.size for one in differences]))
    return Repeats(number, float(np.sqrt(max(0.0, between))), float(np.sqrt(within)))


def _same_scorers(before: Results, after: Results) -> None:
    for metric in before.scorers.keys() & after.scorers.keys():
        if before.scorers[metric] != after.scorers[metric]:
            raise InputError(
                f"'{metric}' of {before.variant} and of {after.variant} was computed by different code.",
                "Score both again; answers that are kept are not paid for twice.",
            )


def _named(keys: Collection[tuple[str, int]]) -> str:
    shown = ", ".join(
        f"'{shortened(item)}'" + (f" (repeat {repeat})" if repeat else "") for item, repeat in sorted(keys)[:_NAMED]
    )
    return f"{len(keys)} item{'s' if len(keys) > 1 else ''} ({shown}{', …' if len(keys) > _NAMED else ''})"
