"""One right continuation: would greedy decoding write it, and how likely is it? So LAMBADA is scored.

acc         whether each of its tokens is the likeliest
logprob     the logarithm of its probability; the perplexity shown is exp of the negative mean
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Measure, Scored
from windlass.evaluate.harness.choice import likelihoods
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Continue, Reply, Request
from windlass.evaluate.harness.rows import Row
from windlass.evaluate.statistics.intervals import Interval, mean_interval


@dataclass(frozen=True, kw_only=True)
class Continuation(Benchmark):
    prompt: str
    target: str

    texts: ClassVar[tuple[str, ...]] = ("prompt", "target")

    @property
    def metrics(self) -> Sequence[str]:
        return ("acc",)

    def example(self, row: Row) -> Example:
        return Example(templates.text(self.prompt, row), templates.text(self.target, row))

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        prompt = frame.prompt(templates.text(self.prompt, row))
        return [Continue(prompt, frame.lead + templates.text(self.target, row))]

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        (found,) = likelihoods(replies)
        values = {"acc": float(found.greedy), "logprob": found.logprob}
        return Scored(values, {"greedy": found.greedy, "logprob": found.logprob}, templates.text(self.target, row))

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        found = super().measures(items, level)
        some = [one for one in items if "logprob" in one.values]
        if some:
            mean = mean_interval([one.values["logprob"] for one in some], [one.group for one in some], level)
            found.append(Measure("perplexity", exponential(-mean), "lower"))
        return found


def exponential(interval: Interval) -> Interval:
    """The interval of exp of what is estimated. What is too large for a number is infinite."""
    with np.errstate(over="ignore"):
        estimate, low, high = (float(np.exp(end)) for end in (interval.estimate, interval.low, interval.high))
    return replace(interval, estimate=estimate, low=low, high=high)
