"""Multiple choice by log-likelihood: the answer is the choice that the model finds likeliest behind the question.

    acc              the sum of the log-probabilities of its tokens (GPT-2's way; favours short choices)
    acc_norm         divided by the characters of the choice
    acc_bytes        divided by its bytes
    acc_token        divided by its tokens
    acc_mutual_info  less what it has without the question, behind an empty context (GPT-3, arXiv 2005.14165)
    mass             no choice: of the probability of all choices, the share that the right ones have (TruthfulQA's MC2)

The names are those of lm-evaluation-harness. Minimal pairs, of which the model should find one sentence likelier, are
choices behind an empty prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from windlass.core.errors import InputError
from windlass.core.protocols import Likelihood
from windlass.evaluate.experiments.results import ItemResult
from windlass.evaluate.harness import templates
from windlass.evaluate.harness.benchmark import Benchmark, Measure, Scored
from windlass.evaluate.harness.framing import Example, Frame
from windlass.evaluate.harness.requests import Continue, Reply, Request
from windlass.evaluate.harness.rows import Row

Metric = Literal["acc", "acc_norm", "acc_bytes", "acc_token", "acc_mutual_info", "mass"]
MASS = "mass"


@dataclass(frozen=True, kw_only=True)
class Choice(Benchmark):
    prompt: str = ""
    choices: str | tuple[str, ...]
    """Templates, or the one field that holds them."""
    gold: str
    """Which choice is right: its place, from 0, or its text; or a list that has 1 for each choice that is right, and 0
    for others."""
    metrics: tuple[Metric, ...] = ("acc", "acc_norm")

    texts: ClassVar[tuple[str, ...]] = ("prompt", "choices", "gold")

    def __post_init__(self) -> None:
        Benchmark.__post_init__(self)
        if not self.metrics:
            raise ValueError("metrics is empty")

    def example(self, row: Row) -> Example:
        choices = options(self.choices, row, "choices")
        return Example(templates.text(self.prompt, row), choices[right_ones(self.gold, row, choices)[0]])

    def requests(self, row: Row, frame: Frame) -> Sequence[Request]:
        choices = options(self.choices, row, "choices")
        prompt = frame.prompt(templates.text(self.prompt, row))
        asked = [Continue(prompt, frame.lead + one) for one in choices]
        if "acc_mutual_info" in self.metrics:
            asked += [Continue("", frame.lead + one) for one in choices]
        return asked

    def score(self, row: Row, replies: Sequence[Reply]) -> Scored:
        choices = options(self.choices, row, "choices")
        right = right_ones(self.gold, row, choices)
        found = likelihoods(replies)
        scores = self._scores(choices, found)
        chosen = {name: int(np.argmax(scores[name])) for name in self.metrics if name != MASS}
        values = {name: float(place in right) for name, place in chosen.items()}
        if MASS in self.metrics:
            shares = np.exp(scores[MASS] - scores[MASS].max())
            values[MASS] = float(shares[right].sum() / shares.sum())
        output = {"choices": chosen, "logprobs": [one.logprob for one in found], "of": len(choices) / len(right)}
        return Scored({name: values[name] for name in self.metrics}, output, right[0] if len(right) == 1 else right)

    def measures(self, items: Sequence[ItemResult], level: float = 0.95) -> list[Measure]:
        return beside_chance(super().measures(items, level), items)

    def _scores(self, choices: Sequence[str], found: Sequence[Likelihood]) -> Mapping[str, Any]:
        """Metric -> what the choices are compared by."""
        n = len(choices)
        logprobs = np.array([one.logprob for one in found[:n]])
        alone = np.array([one.logprob for one in found[n:]] or [0.0] * n)
        compared = {
            "acc": logprobs,
            "acc_norm": logprobs / [len(one) for one in choices],
            "acc_bytes": logprobs / [len(one.encode()) for one in choices],
            "acc_token": logprobs / [one.tokens for one in found[:n]],
            "acc_mutual_info": logprobs - alone,
            MASS: logprobs,
        }
        return {name: compared[name] for name in self.metrics}


def options(given: str | Sequence[str], row: Row, what: str) -> list[str]:
    """The texts that a row offers. Raises `InputError` for fewer than two and for an empty one."""
    if isinstance(given, str):
        found = templates.value(given, row)
        if not isinstance(found, list):
            raise InputError(f"{what}: {given} is no list, but {found!r}.")
        texts = [str(one) for one in found]
    else:
        texts = [templates.text(one, row) for one in given]
    if len(texts) < 2 or not all(texts):
        raise InputError(f"{what}: {texts!r} offers no choice.", "There must be two at least, and none empty.")
    return texts


def right_ones(gold: str, row: Row, choices: Sequence[str]) -> list[int]:
    """The places of the right choices, in their order. Raises `InputError` where there is none."""
    said = templates.value(gold, row)
    if not isinstance(said, list):
        return [right_one(gold, row, choices)]
    if len(said) != len(choices) or any(one not in (0, 1) for one in said) or not any(said):
        raise InputError(
            f"gold: {said!r} does not say of {len(choices)} choices which are right.", "Give 1 or 0 for each."
        )
    return [place for place, one in enumerate(said) if one]


def right_one(gold: str, row: Row, choices: Sequence[str]) -> int:
    """The place of the right choice. Raises `InputError` where it names none of them."""
    said = templates.value(gold, row)
    if isinstance(said, str) and not said.strip().isdigit():
        if said not in choices:
            raise InputError(f"gold: {said!r} is none of the choices {list(choices)!r}.")
        return list(choices).index(said)
    place = int(said) if isinstance(said, int | str) and not isinstance(said, bool) else -1
    if not 0 <= place < len(choices):
        raise InputError(f"gold: {said!r} is the place of none of the {len(choices)} choices.", "Count from 0.")
    return place


def beside_chance(measures: Sequence[Measure], items: Sequence[ItemResult]) -> list[Measure]:
    """With what guessing among the choices would have."""
    numbers = [one.output["of"] for one in items if one.values]
    return [replace(one, chance=sum(1 / number for number in numbers) / len(numbers)) for one in measures]


def likelihoods(replies: Sequence[Reply]) -> list[Likelihood]:
    found = [one for one in replies if isinstance(one, Likelihood)]
    assert len(found) == len(replies), "each request was for a likelihood"
    return found
