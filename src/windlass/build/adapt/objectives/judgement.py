"""What a model makes of judged answers that it was not trained on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from windlass.build.adapt.data.answers import CHOSEN, MISMATCHED, REJECTED, AnswerBatch, AnswerExamples
from windlass.build.adapt.objectives.preference_losses import kto_baseline
from windlass.build.training.data.batches import Batch
from windlass.build.training.objectives import Loss

LossOf = Callable[[Batch], Loss]
Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    loss: float
    """An example."""
    examples: int
    accuracy: float
    """How often the chosen answer has the higher reward; of single answers, how often one that was liked is above the
    reference point and one that was not below it. A tie counts half."""
    chosen: float
    """Mean reward of the answers that were preferred, nan where there are none; in the objective's own units."""
    rejected: float
    divergence: float | None
    """From the model as it was, in nats a token of the held-out answers: half the mean square of the log-ratio, which
    is the Kullback-Leibler divergence to second order, and unlike its other estimates neither negative nor ruled by a
    few unlikely tokens. Of the model's own answers it would be another; None for a reward model."""

    @property
    def margin(self) -> float:
        return self.chosen - self.rejected

    def metrics(self) -> dict[str, float]:
        found = {
            "heldout_loss": self.loss,
            "heldout_accuracy": self.accuracy,
            "heldout_margin": self.margin,
            "heldout_chosen_reward": self.chosen,
            "heldout_rejected_reward": self.rejected,
        }
        if self.divergence is not None:
            found["heldout_kl"] = self.divergence
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def __str__(self) -> str:
        moved = "" if self.divergence is None else f", KL to the base about {self.divergence:.4f} nats a token"
        rewards = f"{self.chosen:+.4f} and {self.rejected:+.4f}"
        margin = "" if math.isnan(self.margin) else f", margin {self.margin:.4f} ({rewards})"
        return f"loss {self.loss:.4f}, {self.accuracy:.1%} right{margin}{moved}, over {self.examples:,} examples"


def sums_of(rewards: Tensor, there: Tensor) -> dict[str, Tensor]:
    """What a batch adds to a `Judgement`, from the rewards of its texts, (examples, sides). Where there is but one
    answer, its reward is relative to a reference point."""
    chosen_N, rejected_N = (torch.where(there[:, side], rewards[:, side], 0) for side in (CHOSEN, REJECTED))
    ahead_N = chosen_N - rejected_N
    return {
        "right": ((ahead_N > 0) + 0.5 * (ahead_N == 0)).sum(),
        "chosen": chosen_N.sum(),
        "chosen_count": there[:, CHOSEN].sum(),
        "rejected": rejected_N.sum(),
        "rejected_count": there[:, REJECTED].sum(),
    }


@torch.no_grad()
def judged_on(
    examples: AnswerExamples, loss_of: LossOf, size: int, most: int | None, tick: Tick | None, *, surveyed: bool
) -> Judgement:
    """Of all examples, or of so many, spread evenly, that the model reads about `most` tokens. `surveyed`: the loss
    needs KTO's reference point, which is then that of these examples."""
    stride = 1 if most is None else max(1, examples.tokens // most)
    numbers = range(0, len(examples), stride)
    batches = [examples.batch([(0, n) for n in numbers[i : i + size]]) for i in range(0, len(numbers), size)]
    if surveyed:
        batches = _with_baseline(batches, loss_of)
    sums: Counter[str] = Counter()
    for batch in batches:
        loss = loss_of(batch)
        sums.update({"loss": float(loss.sum), "examples": loss.counted})
        sums.update({name: float(value) for name, value in loss.metrics.items()})
        if tick is not None:
            tick(int(sums["examples"]))
    count = int(sums["examples"])
    return Judgement(
        sums["loss"] / count,
        count,
        sums["right"] / count,
        _mean(sums, "chosen"),
        _mean(sums, "rejected"),
        sums["moved"] / sums["tokens"] if "moved" in sums else None,
    )


def _with_baseline(batches: list[AnswerBatch], loss_of: LossOf) -> list[AnswerBatch]:
    seen = [loss_of(batch.of_sides(MISMATCHED)) for batch in batches]
    baseline = kto_baseline(torch.stack([one.sum.cpu() for one in seen]).sum() / sum(one.counted for one in seen))
    return [replace(batch.of_sides(CHOSEN, REJECTED), baseline=baseline) for batch in batches]


def _mean(sums: Counter[str], name: str) -> float:
    count = sums[f"{name}_count"]
    return sums[name] / count if count else math.nan
