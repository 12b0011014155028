"""What many judgements say together: the judge's own mean, and the mean that people would give, as far as one can tell.

Which correction is made follows from what is known. Where people labelled some of these very items, their labels move
the judge's mean (prediction-powered; it takes them for a random sample). Where they labelled other items, a share of
passes is corrected by the judge's error rates (Rogan-Gladen; it takes them to be the same here). A judge that was never
calibrated says so wherever its mean stands; labels of items that were chosen because they are hard correct nothing.

Items without a judgement are in no mean. Where they are more than the judge's `max_errors`, no verdict may rest on it,
and the finding says between what the mean lies, whatever they would have been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.evaluate.judges.calibration import FEW, Calibration, Labelled
from windlass.evaluate.judges.judge import Criterion, Judge
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.statistics.intervals import Interval, wilson_interval
from windlass.evaluate.statistics.judged import prediction_powered, rogan_gladen, rogan_gladen_difference
from windlass.evaluate.statistics.paired import paired_difference
from windlass.evaluate.statistics.shares import bounded_interval

NEVER = "NEVER CALIBRATED: how this judge stands to people is not known. Label some items: windlass judge calibrate."
_FEWEST = 10
"""Labelled items among the judged ones from which their labels move the mean."""
SAMPLE = "takes the labelled items for a random sample of these"
SAME_RATES = "takes the judge to err here as often as on the labelled items"
CHOSEN = "the labelled items were not drawn at random"
ONLY_PASSES = "only a share of passes is corrected from other items' labels"
ONE_KIND = "people pass all of the labelled items, or none"


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure over all items."""

    name: str
    """`passed`: a share; `mean`: of the levels' values; `preferred`: how often the first of a pair is, ties half."""
    judge: Interval
    """As the judge has it."""
    people: Interval | None
    """As people would, as far as the calibration tells."""
    note: str = ""
    """What the correction assumes, or why there is none."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one criterion of a judge, over the items of one system, or the difference of two systems on the same items."""

    score: str
    digest: str
    """Of the judge."""
    models: Sequence[str]
    items: int
    failed: int
    """Items without a judgement."""
    why: str
    """The most frequent reason for that."""
    max_errors: float
    measured: Sequence[Measured]
    bounds: tuple[float, float] | None
    """Where items failed: between what the first figure lies, whatever they would have been."""
    consistent: Interval | None
    """Of pairs: how often it said the same both ways round."""
    unanimous: Interval | None
    """Of a panel: how often all said the same."""
    labels: int | None
    """Labelled items of its calibration; None: never calibrated."""
    kappa: float | None
    cost_usd: float | None
    difference: bool = False

    @property
    def calibrated(self) -> bool:
        return self.labels is not None

    @property
    def trusted(self) -> bool:
        """Whether few enough items failed for a verdict to rest on it."""
        return self.failed <= self.max_errors * self.items

    def to_json(self) -> dict[str, Any]:
        row = {**asdict(self), "calibrated": self.calibrated, "trusted": self.trusted}
        row["measured"] = [
            {"name": one.name, "note": one.note, "judge": one.judge.to_json(),
             "people": None if one.people is None else one.people.to_json()}
            for one in self.measured
        ]  # fmt: skip
        for name in ("consistent", "unanimous"):
            held: Interval | None = getattr(self, name)
            row[name] = None if held is None else held.to_json()
        return row

    def render(self) -> str:
        cost = "cost not known" if self.cost_usd is None else f"${self.cost_usd:.4f}"
        what = "the difference on " if self.difference else ""
        head = f"{self.score} by {', '.join(self.models) or 'nobody'}: {what}{self.items:,} items; {cost}"
        rows = [(one.name, str(one.judge), "–" if one.people is None else str(one.people)) for one in self.measured]
        lines = [head, "", table(("figure", "the judge says", "people would say"), rows), ""]
        lines += [f"{one.name}: {one.people.method if one.people else 'no correction'}; {one.note}"
                  for one in self.measured if one.note]  # fmt: skip
        if self.labels is None:
            lines.append(NEVER)
        else:
            few = ", which are few" if self.labels < FEW else ""
            known = "not defined" if self.kappa is None else f"{self.kappa:.2f}"
            lines.append(f"calibrated on {self.labels:,} labelled items{few}; kappa {known}")
        if self.consistent is not None:
            lines.append(f"says the same both ways round of {self.consistent} of the pairs; of others it has a tie")
        if self.unanimous is not None:
            lines.append(f"all of the panel say the same of {self.unanimous} of the items")
        if self.failed:
            lines.append(self._failed())
        return "\n".join(lines)

    def _failed(self) -> str:
        said = f"{self.failed:,} of {self.items:,} items ({self.failed / self.items:.1%}) have no judgement"
        if self.bounds is not None:
            name, (low, high) = self.measured[0].name, self.bounds
            said += f"; with them, the judge's '{name}' lies between {low:.3f} and {high:.3f}"
        said += f".\nMost often: {self.why.rstrip('.')[:300]}"
        if self.trusted:
            return f"{said}."
        return f"{said}.\nNO VERDICT MAY REST ON THIS: more than {self.max_errors:.1%} of the items failed."


def findings(
    judge: Judge,
    judgements: Sequence[Judgement],
    calibrations: Sequence[Calibration] = (),
    clusters: Mapping[str, str] | None = None,
) -> list[Finding]:
    """One for each criterion. clusters: item -> its cluster. Raises `InputError` when every item failed."""
    done = _judged(judge, judgements)
    return [
        _finding(
            judge,
            criterion,
            judgements,
            [_measured(judge, criterion, name, done, known, clusters) for name in _figures(judge, criterion)],
            _bounds(criterion, judge, judgements),
            known,
        )
        for criterion in judge.criteria
        for known in [_of(calibrations, criterion)]
    ]


def same_items(before: Sequence[str], after: Sequence[str]) -> None:
    """Raises `InputError` unless both hold the same ids."""
    if set(before) != set(after):
        only = sorted(set(before) ^ set(after))
        raise InputError(
            f"The two do not hold the same items: '{only[0]}' and {len(only) - 1:,} more are in one of them only.",
            "Compare two systems on the same items, with the same ids.",
        )


def differences_found(
    judge: Judge,
    before: Sequence[Judgement],
    after: Sequence[Judgement],
    calibrations: Sequence[Calibration] = (),
    clusters: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What `after` has more than `before`, over the same items. Raises `InputError` where the items are not the same,
    and when no item was judged in both."""
    if judge.pairwise:
        raise InputError(f"'{judge.name}' compares two outputs by itself.", "Give it items with both of them.")
    first = {judgement.item: judgement for judgement in before}
    same_items(list(first), [judgement.item for judgement in after])
    pairs = [(first[one.item], one) for one in after]
    done = [(a, b) for a, b in pairs if a.error is None and b.error is None]
    _judged(judge, [b for _, b in done] or list(after))
    failed = [b if b.error is not None else a for a, b in pairs if a.error is not None or b.error is not None]
    counted = [*(b for _, b in done), *failed]
    found = []
    for criterion in judge.criteria:
        known = _of(calibrations, criterion)
        groups = _clusters([b for _, b in done], clusters)
        measured = []
        for name in _figures(judge, criterion):
            a = [_value(criterion, name, one) for one, _ in done]
            b = [_value(criterion, name, one) for _, one in done]
            raw = paired_difference(a, b, groups).difference
            people, note = None, ""
            if known is not None:
                try:
                    people, note = corrected_difference(criterion, name, done, known, clusters)
                except InputError as error:
                    note = error.message
            measured.append(Measured(name, raw, people, note))
        found.append(_finding(judge, criterion, counted, measured, None, known, paid=[*before, *after]))
    return found


def _finding(
    judge: Judge,
    criterion: Criterion,
    judgements: Sequence[Judgement],
    measured: Sequence[Measured],
    bounds: tuple[float, float] | None,
    known: Calibration | None,
    *,
    paid: Sequence[Judgement] | None = None,
) -> Finding:
    """paid: of a difference, the judgements of both systems."""
    done = [one for one in judgements if one.error is None]
    failed = [one for one in judgements if one.error is not None]
    steady = [one.consistent for one in done if one.consistent is not None]
    panel = len(judge.models) > 1
    costs = [one.cost_usd for one in (judgements if paid is None else paid)]
    priced = [cost for cost in costs if cost is not None]
    return Finding(
        score=judge.score_name(criterion.name),
        digest=judge.digest,
        models=judge.models,
        items=len(judgements),
        failed=len(failed),
        why=next((reason for reason, _ in Counter(one.error or "" for one in failed).most_common(1)), ""),
        max_errors=judge.max_errors,
        measured=measured,
        bounds=bounds,
        consistent=wilson_interval(sum(steady), len(steady)) if steady else None,
        unanimous=wilson_interval(sum(one.unanimous for one in done), len(done)) if panel else None,
        labels=None if known is None else len(known.rows),
        kappa=None if known is None or known.kappa is None else known.kappa.estimate,
        cost_usd=sum(priced) if len(priced) == len(costs) else None,
        difference=paid is not None,
    )


def _judged(judge: Judge, judgements: Sequence[Judgement]) -> list[Judgement]:
    done = [one for one in judgements if one.error is None]
    if not done:
        why = f" the first: {judgements[0].error}" if judgements else " there are none"
        raise InputError(f"'{judge.name}' has no judgement of any item;{why}")
    return done


def _of(calibrations: Sequence[Calibration], criterion: Criterion) -> Calibration | None:
    return next((one for one in calibrations if one.criterion == criterion), None)


def _figures(judge: Judge, criterion: Criterion) -> tuple[str, ...]:
    if judge.pairwise:
        return ("preferred",)
    return ("passed",) if criterion.is_binary else ("passed", "mean")


def _value(criterion: Criterion, figure: str, judgement: Judgement) -> float:
    value = judgement.values[criterion.name]
    return float(criterion.passed(value)) if figure == "passed" else value


def _measured(
    judge: Judge,
    criterion: Criterion,
    figure: str,
    done: Sequence[Judgement],
    known: Calibration | None,
    clusters: Mapping[str, str] | None,
) -> Measured:
    values = [_value(criterion, figure, one) for one in done]
    groups = _clusters(done, clusters)
    least, most = (0.0, 1.0) if figure == "passed" else (criterion.lowest, criterion.highest)
    if figure == "passed" and groups is None:
        raw = wilson_interval(int(sum(values)), len(values))
    else:
        raw = bounded_interval(values, (least, most), groups)
    people, note = (None, "") if known is None else corrected_mean(criterion, figure, done, known, clusters)
    return Measured(figure, raw, None if people is None else people.within(least, most), note)


def corrected_mean(
    criterion: Criterion,
    figure: str,
    done: Sequence[Judgement],
    known: Calibration,
    clusters: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> tuple[Interval | None, str]:
    """The mean of a figure as people would have it, and what that takes for granted; or why it is not known.

    done: judgements without an error. clusters: item -> its cluster.
    """
    if known.chosen:
        return None, CHOSEN
    rows = _sure(criterion, figure, known)
    truth = {key: _human(criterion, figure, row) for key, row in rows.items()}
    here = [one for one in done if one.key in truth]
    others = [one for one in done if one.key not in truth]
    if len(here) >= _FEWEST and not others:
        bounds = (0.0, 1.0) if figure == "passed" else (criterion.lowest, criterion.highest)
        own = bounded_interval([truth[one.key] for one in here], bounds, _clusters(here, clusters), level)
        return own, "people labelled all of these items: their own mean"
    if len(here) >= _FEWEST:
        powered = prediction_powered(
            [_value(criterion, figure, one) for one in others],
            [truth[one.key] for one in here],
            [_value(criterion, figure, one) for one in here],
            clusters=_clusters(others, clusters),
            labelled_clusters=_clusters(here, clusters),
            level=level,
        )
        return powered, SAMPLE
    values, groups = [_value(criterion, figure, one) for one in done], _clusters(done, clusters)
    if figure == "passed" and known.rates is not None:
        human, judged = known.passes
        shared, why = _tried(lambda: rogan_gladen(values, human, judged, clusters=groups, level=level))
        return shared, why or SAME_RATES
    if len(rows) < _FEWEST:
        return None, f"{len(rows)} labelled items are too few"
    said = [float(criterion.passed(row.judge)) if figure == "passed" else row.judge for row in rows.values()]
    return prediction_powered(values, list(truth.values()), said, clusters=groups, level=level), SAMPLE


def corrected_difference(
    criterion: Criterion,
    figure: str,
    pairs: Sequence[tuple[Judgement, Judgement]],
    known: Calibration,
    clusters: Mapping[str, str] | None = None,
    level: float = 0.95,
) -> tuple[Interval | None, str]:
    """How much more people would say of the second of each pair than of the first, and what that takes for granted; or
    why it is not known. Raises `InputError` for a judge that cannot be told from one that guesses."""
    if known.chosen:
        return None, CHOSEN
    truth = {key: _human(criterion, figure, row) for key, row in _sure(criterion, figure, known).items()}
    here = [(a, b) for a, b in pairs if a.key in truth and b.key in truth]
    others = [(a, b) for a, b in pairs if a.key not in truth or b.key not in truth]

    def said(some: Sequence[tuple[Judgement, Judgement]]) -> list[float]:
        return [_value(criterion, figure, b) - _value(criterion, figure, a) for a, b in some]

    def groups(some: Sequence[tuple[Judgement, Judgement]]) -> list[str] | None:
        return _clusters([b for _, b in some], clusters)

    if len(here) >= _FEWEST and not others:
        own = paired_difference([truth[a.key] for a, _ in here], [truth[b.key] for _, b in here], groups(here), level)
        return own.difference, "people labelled both outputs of all these items: their own difference"
    if len(here) >= _FEWEST:
        gains = [truth[b.key] - truth[a.key] for a, b in here]
        powered = prediction_powered(
            said(others), gains, said(here), clusters=groups(others), labelled_clusters=groups(here), level=level
        )
        return powered, SAMPLE
    if figure != "passed" or known.rates is None:
        return None, ONE_KIND if figure == "passed" else ONLY_PASSES
    human, judged = known.passes
    before, after = ([_value(criterion, figure, pair[side]) for pair in pairs] for side in (0, 1))
    found = rogan_gladen_difference(before, after, human, judged, clusters=groups(pairs), level=level)
    return found, f"{SAME_RATES}, and on both systems alike"


def _sure(criterion: Criterion, figure: str, known: Calibration) -> dict[str, Labelled]:
    """Labelled items by their keys; of passes, those that people are not split over."""
    return {row.key: row for row in known.rows if figure != "passed" or row.passed(criterion) is not None}


def _human(criterion: Criterion, figure: str, row: Labelled) -> float:
    return row.human if figure != "passed" else float(bool(row.passed(criterion)))


def _tried(corrected: Any) -> tuple[Interval | None, str]:
    """The corrected interval, or why there is none."""
    try:
        return corrected(), ""
    except InputError as error:
        return None, error.message


def _bounds(criterion: Criterion, judge: Judge, judgements: Sequence[Judgement]) -> tuple[float, float] | None:
    """Between what the first figure lies, whatever the items that failed would have been (Manski)."""
    done = [one for one in judgements if one.error is None]
    if len(done) == len(judgements):
        return None
    figure = _figures(judge, criterion)[0]
    low, high = (0.0, 1.0) if figure == "passed" else (criterion.lowest, criterion.highest)
    total, missing = sum(_value(criterion, figure, one) for one in done), len(judgements) - len(done)
    return (total + missing * low) / len(judgements), (total + missing * high) / len(judgements)


def _clusters(judgements: Sequence[Judgement], clusters: Mapping[str, str] | None) -> list[str] | None:
    if not clusters:
        return None
    return [clusters.get(one.item, f"item {one.item}") for one in judgements]
