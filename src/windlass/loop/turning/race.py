"""The race: candidates against what is live on the dev questions, in heats; who is clearly behind leaves early.

Each heat asks as many new questions as all before it (successive halving: Karnin, Koren and Somekh 2013; Jamieson and
Talwalkar 2016, https://arxiv.org/abs/1502.07943). After it a runner leaves when the paired interval of its difference
to the leader, or to what is live, lies wholly below zero (racing: Maron and Moore 1994; Birattari et al. 2002). Runners
that cannot be told apart go on together: halving by the bare mean would throw out good ones after the first few
questions.

The race only chooses what is worth a comparison. Its figures are too good, since it picks the best of several, and the
settings of some runners were fitted on these very questions; the gate never sees them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference

Positions = NDArray[np.intp]
Score = Callable[[Positions], NDArray[np.float64]]
"""The values of a metric, more is better, for questions by their positions; NaN where a question has no value."""
Fate = Literal["finalist", "beaten", "no better"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one runner did."""

    name: str
    questions: int
    """How many it was asked before it left."""
    gain: Interval
    """Over what is live, on these questions."""
    fate: Fate
    why: str

    def to_json(self) -> dict[str, Any]:
        fields = {"name": self.name, "questions": self.questions, "fate": self.fate, "why": self.why}
        return {**fields, "gain": self.gain.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Standing:
        return cls(**{**row, "gain": Interval.from_json(row["gain"])})


def race(
    live: Score,
    runners: Mapping[str, Score],
    clusters: Sequence[str],
    *,
    heats: int = 3,
    finalists: int = 1,
    level: float = 0.9,
    seed: int = 0,
) -> list[Standing]:
    """All runners, the finalists first, the best of them at the head; nobody is a finalist who gains nothing.

    clusters: of each dev question. level: of the intervals by which runners leave. Raises `InputError` when a runner,
    or what is live, has no value for any question.
    """
    if not runners:
        return []
    own = np.zeros(0)
    asked = np.zeros(0, np.intp)
    values = {name: np.zeros(0) for name in runners}
    left: dict[str, Standing] = {}
    for number, heat in enumerate(_heats(clusters, heats, seed), start=1):
        running = [name for name in runners if name not in left]
        asked, own = np.concatenate([asked, heat]), np.concatenate([own, live(heat)])
        for name in running:
            values[name] = np.concatenate([values[name], runners[name](heat)])
        names = [clusters[at] for at in asked.tolist()]
        gains = {name: _difference(own, values[name], names, level, name) for name in running}
        leader = max(running, key=lambda name: gains[name].estimate)
        for name in running:
            behind = _difference(values[leader], values[name], names, level, name)
            if name != leader and behind.high < 0:
                why = f"behind '{leader}' by {-behind.estimate:.4f} after {len(asked):,} questions (heat {number})"
                left[name] = Standing(name, len(asked), gains[name], "beaten", why)
            elif gains[name].high < 0:
                why = f"worse than what is live after {len(asked):,} questions (heat {number})"
                left[name] = Standing(name, len(asked), gains[name], "no better", why)
        if len(left) == len(runners):
            break
    ended = sorted((name for name in runners if name not in left), key=lambda name: -gains[name].estimate)
    found = [_ended(name, place, gains[name], len(asked), finalists) for place, name in enumerate(ended)]
    return found + sorted(left.values(), key=lambda one: -one.gain.estimate)


def _ended(name: str, place: int, gain: Interval, asked: int, finalists: int) -> Standing:
    if gain.estimate <= 0:
        return Standing(name, asked, gain, "no better", f"no better than what is live on {asked:,} questions")
    if place < finalists:
        return Standing(name, asked, gain, "finalist", f"number {place + 1} on {asked:,} questions")
    return Standing(name, asked, gain, "beaten", f"others did better on {asked:,} questions")


def _heats(clusters: Sequence[str], heats: int, seed: int) -> list[Positions]:
    """Positions of all questions, whole clusters together, in a random order: each heat as many as those before it."""
    if not clusters or heats < 1:
        raise InputError("A race needs dev questions, and a heat.", "Derive an exam from more documents.")
    names, codes = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[codes]
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))  # where a cluster begins
    ends = [math.ceil(len(order) / 2**left) for left in range(heats - 1, -1, -1)]
    cuts = sorted({int(starts[np.searchsorted(starts, end)]) if end <= starts[-1] else len(order) for end in ends})
    return [order[a:b].astype(np.intp) for a, b in zip([0, *cuts], cuts) if b > a]


def _difference(
    before: NDArray[np.float64], after: NDArray[np.float64], clusters: Sequence[str], level: float, name: str
) -> Interval:
    kept = np.flatnonzero(np.isfinite(before) & np.isfinite(after))
    if not len(kept):
        raise InputError(
            f"'{name}' and what it is compared with have no value for any of {len(before):,} dev questions.",
            "Look at the first of their answers: does the provider answer, and does the metric fit?",
        )
    names = [clusters[at] for at in kept.tolist()]
    return paired_difference(before[kept], after[kept], names, level).difference
