"""Schemata: two contexts that differ in one word, and one continuation, likelier behind the context that makes sense.

So WinoGrande and Winograd's own are scored (partial evaluation: Trinh & Le, arXiv 1806.02847). What is compared is the
same text, so nothing has to be normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Measure, Scored
from windlass.evaluate.harness.choice import beside_chance, likelihoods, options, right_one
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Continue, Reply, Request
from windlass.evaluate.harness.rows import Row


@dataclass(frozen=True, kw_only=True)
class Schema(Benchmark):
    contexts: str | tuple[str, ...]
    """Templates, or the one field that holds them."""
    continuation: str
    gold: str
    """Which context is right: its place, from 0."""

    texts: ClassVar[tuple[str, ...]] = ("contexts", "continuation", "gold")

    @property
    def metrics(self) -> Sequence[str]:
        return ("acc",)

    def example(self, row: Row) -> Example:
        contexts = options(self.contexts, row, "contexts")
        return Example(contexts[right_one(self.gold, row, contexts)], templates.text(self.continuation, row))

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        text = frame.lead + templates.text(self.continuation, row)
        return [Continue(frame.prompt(one), text) for one in options(self.contexts, row, "contexts")]

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        gold = right_one(self.gold, row, options(self.contexts, row, "contexts"))
        logprobs = [one.logprob for one in likelihoods(replies)]
        chosen = int(np.argmax(logprobs))
        output = {"choices": {"acc": chosen}, "logprobs": logprobs, "of": len(logprobs)}
        return Scored({"acc": float(chosen == gold)}, output, gold)

    def question(self, row: Row) -> str:
        return " / ".join(options(self.contexts, row, "contexts")) + f" … {templates.text(self.continuation, row)}"

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        return beside_chance(super().measures(items, level), items)
