"""What came of judging: the opinion of each model on an item, and the one judgement that they make together.

An opinion that failed is none: the item has no judgement then, with the reason, and is counted apart. A panel's
judgement takes all of its members: without one it would be another panel's on just the items that are hard to judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from windlass.evaluate.judges.items import Item
from windlass.evaluate.judges.judge import FIRST, SECOND, TIE, Criterion, Judge, Vote

_OTHER = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one model says of one item."""

    model: str
    levels: Mapping[str, str] = field(default_factory=dict)
    """Criterion -> level."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    """Why there is no opinion."""
    consistent: bool | None = None
    """Of a pair: whether it says the same when the two change places."""
    cost_usd: float | None = None
    """US dollars; None where a price is not known."""
    traces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge says of one item: `values` by criterion, or `error`."""

    item: str
    values: Mapping[str, float] = field(default_factory=dict)
    opinions: tuple[Opinion, ...] = ()
    error: str | None = None
    content: str = ""
    """`Item.content` of the item."""

    @property
    def key(self) -> str:
        """The same for one output, whatever it is called."""
        return self.content or self.item

    @property
    def cost_usd(self) -> float | None:
        costs = [opinion.cost_usd for opinion in self.opinions]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    @property
    def consistent(self) -> bool | None:
        """Of a pair: whether every model said the same both ways round."""
        said = [opinion.consistent for opinion in self.opinions if opinion.consistent is not None]
        return all(said) if said else None

    @property
    def unanimous(self) -> bool:
        """Whether all models gave the same levels."""
        return len({tuple(sorted(opinion.levels.items())) for opinion in self.opinions}) <= 1

    def reason(self, criterion: str) -> str:
        """The reasons of all models, with their names where they are several."""
        said = [(opinion.model, opinion.reasons.get(criterion, "")) for opinion in self.opinions]
        return said[0][1] if len(said) == 1 else "\n".join(f"{model}: {reason}" for model, reason in said if reason)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Judgement:
        opinions = tuple(Opinion(**{**one, "traces": tuple(one["traces"])}) for one in row["opinions"])
        return cls(row["item"], row["values"], opinions, row["error"], row["content"])


def both_ways(criterion: str, forward: Opinion, backward: Opinion) -> Opinion:
    """One opinion on a pair, of what a model said of it and of the pair turned round. Where the two differ, the model
    went by the place and not by the output: a tie, and marked as inconsistent."""
    costs = (forward.cost_usd, backward.cost_usd)
    cost = None if None in costs else sum(one for one in costs if one is not None)
    traces = (*forward.traces, *backward.traces)
    error = forward.error or backward.error
    if error is not None:
        return Opinion(forward.model, error=error, cost_usd=cost, traces=traces)
    there, back = forward.levels[criterion], _OTHER[backward.levels[criterion]]
    reason = forward.reasons.get(criterion, "")
    if there != back:
        reason = f"In this order: {reason}\nTurned round: {backward.reasons.get(criterion, '')}"
    level = there if there == back else TIE
    return Opinion(forward.model, {criterion: level}, {criterion: reason}, None, there == back, cost, traces)


def settled(judge: Judge, item: Item, opinions: Sequence[Opinion]) -> Judgement:
    """The judgement that these opinions, one for each model of the judge, make together."""
    failed = [opinion for opinion in opinions if opinion.error is not None]
    if failed:
        who = f"{failed[0].model}: " if len(opinions) > 1 else ""
        return Judgement(item.id, {}, tuple(opinions), f"{who}{failed[0].error}", item.content)
    values = {
        criterion.name: voted(judge.vote, criterion, [opinion.levels[criterion.name] for opinion in opinions])
        for criterion in judge.criteria
    }
    return Judgement(item.id, values, tuple(opinions), None, item.content)


def voted(vote: Vote, criterion: Criterion, levels: Sequence[str]) -> float:
    """The value of several levels together. A majority that is none, as two levels have as many votes, is the median
    of all; so is one vote alone."""
    values = [criterion.value(level) for level in levels]
    if vote == "mean":
        return fmean(values)
    if vote == "majority":
        (level, votes), *others = Counter(levels).most_common()
        if not others or others[0][1] < votes:
            return criterion.value(level)
    return float(median(values))
