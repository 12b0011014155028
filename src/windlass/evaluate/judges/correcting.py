"""Two variants by what one judge says of both: the means and the difference that people would find.

What people said of some outputs takes the place of the judge's word with all the uncertainty that few labels have (see
`judges.finding` for which correction is made, and what it takes for granted).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.judges.finding import corrected_difference, corrected_mean
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.judges.metric import item_of
from windlass.evaluate.judges.trust import Trust
from windlass.evaluate.statistics.intervals import Interval

Pair = tuple[ItemResult, ItemResult]


@dataclass(frozen=True, slots=True)
class Corrected:
    """As people would have it. None: that is not known."""

    incumbent: Interval | None = None
    candidate: Interval | None = None
    difference: Interval | None = None
    note: str = ""
    """What the difference takes for granted, or why it is not corrected."""
    useless: bool = False
    """The calibration shows that nothing can be concluded from this judge: it may as well guess."""


def corrected(metric: str, pairs: Sequence[Pair], trust: Trust, level: float) -> Corrected:
    """pairs: those of which both sides have the metric. Repeats of an item are no further items."""
    known, criterion = trust.calibration, trust.criterion
    if known is None:
        return Corrected()
    sides = [[_judgement(pair[side], metric, trust) for pair in pairs] for side in (0, 1)]
    ends = criterion.lowest, criterion.highest
    # Of two levels the share of the better one says all, and is corrected from labels of other items too. Several
    # opinions may lie between the two levels; then the value is no level.
    passes = criterion.is_binary and {one.values[criterion.name] for side in sides for one in side} <= set(ends)
    figure, unit = ("passed", ends[1] - ends[0]) if passes and criterion.bar == ends[1] else ("mean", 1.0)
    start = ends[0] if figure == "passed" else 0.0
    clusters = None
    if any(a.cluster for a, _ in pairs) or len({a.item for a, _ in pairs}) < len(pairs):
        clusters = {one.item: a.group for one, (a, _) in zip(sides[0], pairs)}
    try:
        difference, note = corrected_difference(criterion, figure, list(zip(*sides)), known, clusters, level)
    except InputError as error:
        return Corrected(note=error.message, useless=True)
    means = [_or_none(lambda: corrected_mean(criterion, figure, side, known, clusters, level)[0]) for side in sides]  # noqa: B023
    incumbent, candidate = (None if one is None else _scaled(one, unit, start).within(*ends) for one in means)
    width = ends[1] - ends[0]
    return Corrected(
        incumbent,
        candidate,
        None if difference is None else _scaled(difference, unit).within(-width, width),
        note,
    )


def _judgement(one: ItemResult, metric: str, trust: Trust) -> Judgement:
    name = f"{one.item}#{one.repeat}"
    try:
        content = item_of(one, trust.judge).content
    except InputError:  # results that do not say what was asked: no label can be of this very output
        content = name
    return Judgement(name, {trust.criterion.name: one.values[metric]}, content=content)


def _or_none(find: Callable[[], Interval | None]) -> Interval | None:
    try:
        return find()
    except InputError:
        return None


def _scaled(one: Interval, unit: float, start: float = 0.0) -> Interval:
    low, high = (start + unit * end for end in (one.low, one.high))
    return replace(one, estimate=start + unit * one.estimate, low=low, high=high)
