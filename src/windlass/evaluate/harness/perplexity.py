"""How well a model predicts whole texts, over all of them together, per byte and per word, so that models with
different vocabularies compare.

    bits_per_byte     -sum(log2 p) / bytes
    byte_perplexity   2 ** bits_per_byte
    word_perplexity   exp(-sum(log p) / words); words are what white space parts, as in lm-evaluation-harness
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Measure, Scored
from windlass.evaluate.harness.choice import likelihoods
from windlass.evaluate.harness.continuation import exponential
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Read, Reply, Request
from windlass.evaluate.harness.rows import Row
from windlass.evaluate.statistics.ratios import paired_ratio


@dataclass(frozen=True, kw_only=True)
class Perplexity(Benchmark):
    text: str = "{text}"

    texts: ClassVar[tuple[str, ...]] = ("text",)

    @property
    def metrics(self) -> Sequence[str]:
        return ("bits_per_byte",)

    def example(self, row: Row) -> Example:
        raise InputError("A perplexity is measured without examples.", "Leave out --shots.")

    def question(self, row: Row) -> str:
        return templates.text(self.text, row)[:200]

    def check(self, row: Row) -> None:
        if not templates.text(self.text, row).strip():
            raise InputError("The text is empty.")

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        return [Read(templates.text(self.text, row))]

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        text, (found,) = templates.text(self.text, row), likelihoods(replies)
        size, words = len(text.encode()), len(re.split(r"\s+", text))
        output = {"logprob": found.logprob, "bytes": size, "words": words, "tokens": found.tokens}
        return Scored({"bits_per_byte": -found.logprob / math.log(2) / size}, output, None)

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        some = [one for one in items if "bits_per_byte" in one.values]
        if not some:
            return []
        nats = [-one.output["logprob"] for one in some]
        groups = [one.group for one in some]
        per_byte = paired_ratio([one.output["bytes"] for one in some], nats, groups, level)
        per_word = paired_ratio([one.output["words"] for one in some], nats, groups, level)
        bits = {end: getattr(per_byte, end) / math.log(2) for end in ("estimate", "low", "high")}
        return [
            Measure("bits_per_byte", replace(per_byte, **bits), "lower"),
            Measure("byte_perplexity", exponential(per_byte), "lower"),
            Measure("word_perplexity", exponential(per_word), "lower"),
        ]
