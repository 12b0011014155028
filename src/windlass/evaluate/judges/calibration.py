"""How a judge stands to people: on items that both judged, how often it passes what they pass, and how far they agree.

A calibration keeps the facts, item by item; every figure is computed from them, so that one added later can be computed
from a calibration that is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.core.tables import table
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.judges.judge import Criterion, Judge
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.statistics.agreement import Measure, alpha_interval, gwet_ac1, kappa_interval
from windlass.evaluate.statistics.intervals import Interval, wilson_interval
from windlass.evaluate.statistics.judged import ErrorRates, error_rates
from windlass.evaluate.statistics.shares import bounded_interval

KIND, FILE = "calibration", "calibration.json"
"""Of the artifact."""
FEW = 50
"""With fewer labelled items than this, the report says that they are few."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An item that people labelled and the judge judged."""

    item: str
    people: Mapping[str, float]
    """Author -> value."""
    judge: float
    cluster: str | None = None
    content: str = ""
    """`Item.content`."""
    reason: str = ""
    """The judge's."""

    @property
    def key(self) -> str:
        """As `Judgement.key`."""
        return self.content or self.item

    @property
    def human(self) -> float:
        """The mean of what people say."""
        return fmean(self.people.values())

    def passed(self, criterion: Criterion) -> float | None:
        """1 or 0 as most people have it; None when as many pass it as fail it."""
        share = fmean(criterion.passed(value) for value in self.people.values())
        return None if share == 0.5 else float(share > 0.5)


@dataclass(frozen=True)
class Calibration:
    """Of one criterion of a judge."""

    judge: Judge
    criterion: Criterion
    rows: Sequence[Labelled]
    failed: int = 0
    """Labelled items that the judge has no judgement of: none of the figures holds for such."""
    chosen: int = 0
    """Labelled items that were not drawn at random. With any, the figures say how the judge does on such items, and
    nothing is corrected by them."""
    consistent: Interval | None = None
    """Of pairs: the share of which the judge says the same both ways round."""

    @property
    def authors(self) -> list[str]:
        return sorted({author for row in self.rows for author in row.people})

    @property
    def split(self) -> int:
        """Items that as many people pass as fail: they count for no rate."""
        return sum(row.passed(self.criterion) is None for row in self.rows)

    @cached_property
    def passes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What people pass and what the judge passes, 0 or 1, of the items that people are not split over."""
        known = [(row.passed(self.criterion), self.criterion.passed(row.judge)) for row in self.rows]
        sure = [(human, float(judge)) for human, judge in known if human is not None]
        return np.array([human for human, _ in sure]), np.array([judge for _, judge in sure])

    @cached_property
    def rates(self) -> ErrorRates | None:
        """None where people pass all of them, or none."""
        human, judge = self.passes
        return error_rates(human, judge) if 0 < human.sum() < human.size else None

    @property
    def agreement(self) -> Interval:
        """The share of items of which it says as people do; of a pair, a tie against a preference counts half."""
        if self.judge.pairwise:
            return bounded_interval([1 - abs(row.human - row.judge) for row in self.rows], (0.0, 1.0), self.clusters)
        human, judge = self.passes
        return wilson_interval(int(np.sum(human == judge)), human.size)

    @cached_property
    def kappa(self) -> Interval | None:
        """Of pass and fail."""
        return _defined(lambda: kappa_interval(*self.passes))

    @cached_property
    def weighted_kappa(self) -> Interval | None:
        """Of the values, with quadratic weights; only where there are more than two levels."""
        if self.criterion.is_binary:
            return None
        human, judge = [row.human for row in self.rows], [row.judge for row in self.rows]
        return _defined(lambda: kappa_interval(human, judge, "quadratic", self.clusters))

    @cached_property
    def ac1(self) -> float | None:
        """Gwet's AC1 of pass and fail, which stays high where almost all pass."""
        human, judge = self.passes
        return gwet_ac1(np.stack([human, judge], axis=1), 2) if human.size else None

    @cached_property
    def alpha(self) -> Interval | None:
        """Krippendorff's alpha of the judge and the people's mean."""
        ratings = np.array([[row.human, row.judge] for row in self.rows])
        return _defined(lambda: alpha_interval(ratings, "interval", self.clusters))

    @cached_property
    def people(self) -> Interval | None:
        """Krippendorff's alpha of the people among themselves: no judge can agree with them more than they do."""
        authors = self.authors
        ratings = np.array([[row.people.get(author, np.nan) for author in authors] for row in self.rows])
        measure: Measure = "nominal" if self.criterion.is_binary else "interval"
        return _defined(lambda: alpha_interval(ratings, measure, self.clusters)) if len(authors) > 1 else None

    @property
    def misses(self) -> list[Labelled]:
        """Where it says otherwise than people do, the farthest apart first: what to mend in its instructions, or in the
        labels."""
        far = [row for row in self.rows if row.human != row.judge]
        return sorted(far, key=lambda row: -abs(row.human - row.judge))

    @property
    def clusters(self) -> list[str] | None:
        if all(row.cluster is None for row in self.rows):
            return None
        return [row.cluster or f"item {row.item}" for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        return {
            "judge": self.judge.to_json(),
            "criterion": self.criterion.name,
            "rows": [asdict(row) for row in self.rows],
            "failed": self.failed,
            "chosen": self.chosen,
            "consistent": None if self.consistent is None else self.consistent.to_json(),
        }

    @classmethod
    def from_json(cls, judge: Judge, row: Mapping[str, Any]) -> Calibration:
        steady = row["consistent"]
        return cls(
            judge,
            judge.criterion(row["criterion"]),
            [Labelled(**one) for one in row["rows"]],
            row["failed"],
            row["chosen"],
            None if steady is None else Interval.from_json(steady),
        )

    def render(self) -> str:
        rows: list[tuple[str, str, str]] = []
        if self.rates is not None:
            rows.append(("sensitivity", str(self.rates.sensitivity), "of what people pass, it passes"))
            rows.append(("specificity", str(self.rates.specificity), "of what people fail, it fails"))
        rows.append(("agreement", str(self.agreement), "says as people do"))
        rows.append(("kappa", _shown(self.kappa), "agreement beyond chance, of pass and fail"))
        if not self.criterion.is_binary:
            rows.append(("weighted kappa", _shown(self.weighted_kappa), "of the values, quadratic weights"))
        rows.append(("alpha", _shown(self.alpha), "Krippendorff's, judge and people"))
        if self.ac1 is not None:
            rows.append(("AC1", f"{self.ac1:.3f}", "Gwet's, of pass and fail"))
        if len(self.authors) > 1:
            rows.append(("people", _shown(self.people), "Krippendorff's alpha among the people"))
        if self.consistent is not None:
            rows.append(("consistent", str(self.consistent), "of the pairs, the same both ways round"))
        return "\n".join([self._head(), "", table(("figure", "value", "meaning"), rows), *self._notes()])

    def _head(self) -> str:
        who = "1 person" if len(self.authors) == 1 else f"{len(self.authors)} people"
        return (
            f"{self.judge.score_name(self.criterion.name)}: {len(self.rows):,} items with labels of {who}; "
            f"passed from {self.criterion.bar:g}"
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.failed:
            notes.append(f"{self.failed:,} labelled items have no judgement; they are in none of these figures.")
        if self.chosen:
            notes.append(
                f"{self.chosen:,} of the items were not drawn at random: these figures hold for items like them, and "
                "no mean is corrected by them."
            )
        if self.split:
            notes.append(f"Of {self.split:,} items as many people pass as fail; they count for no rate.")
        if self.rates is None:
            notes.append("People pass all of these items, or none: how the judge errs on the others is not known.")
        if len(self.rows) < FEW:
            notes.append(f"{len(self.rows)} labelled items are few: label {FEW} or more, some of each level.")
        return ["", *notes] if notes else []


def calibrate(
    judge: Judge, items: Sequence[Item], judgements: Sequence[Judgement], labels: Sequence[Label]
) -> list[Calibration]:
    """The judge against people, a calibration for each criterion that people labelled.

    Raises `InputError` when nothing was both labelled and judged.
    """
    known = {item.id: item for item in items}
    said = {judgement.item: judgement for judgement in judgements}
    found = []
    for criterion in judge.criteria:
        people: dict[str, dict[str, float]] = defaultdict(dict)
        for label in labels:
            if label.criterion == criterion.name and label.item in said and label.item in known:
                people[label.item][label.author] = label.value
        if not people:
            continue
        rows = [
            Labelled(
                item,
                votes,
                said[item].values[criterion.name],
                known[item].cluster,
                said[item].content,
                said[item].reason(criterion.name),
            )
            for item, votes in people.items()
            if said[item].error is None
        ]
        if not rows:
            first = next(said[item].error for item in people)
            raise InputError(f"'{judge.name}' has no judgement of any labelled item; the first: {first}")
        steady = [same for row in rows if (same := said[row.item].consistent) is not None]
        consistent = wilson_interval(sum(steady), len(steady)) if steady else None
        chosen = sum(bool(known[row.item].chosen) for row in rows)
        found.append(Calibration(judge, criterion, rows, len(people) - len(rows), chosen, consistent))
    if not found:
        raise InputError("No item was both labelled and judged.", "Do the ids of items and labels match?")
    return found


def _defined(figure: Callable[[], Interval]) -> Interval | None:
    """None for a figure that too few or too equal items leave undefined."""
    try:
        return figure()
    except InputError:
        return None


def _shown(interval: Interval | None) -> str:
    return "not defined" if interval is None else str(interval)
