"""What a student learns of its teacher, and how well it does on rows that it was not trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from windlass.build.adapt.objectives.distillation_losses import Divergence
from windlass.build.adapt.objectives.preparing import LossOf
from windlass.build.adapt.sections import TuneObjectiveSettings
from windlass.build.training.data.batches import Examples
from windlass.build.training.fitting import Tick
from windlass.build.training.measuring.heldout import spread


@dataclass(frozen=True, slots=True)
class Lesson:
    divergence: Divergence
    beta: float
    temperature: float
    label_weight: float
    of: str = "tokens"
    """What the rows hold beside what the teacher thinks."""

    def __str__(self) -> str:
        names = {"jsd": f"jsd with beta {self.beta:g}", "sorted": "the distance of sorted probabilities"}
        kind = names.get(self.divergence, f"{self.divergence} KL")
        return (
            f"{kind} at temperature {self.temperature:g} weighs {1 - self.label_weight:g}, "
            f"the {self.of} of the rows {self.label_weight:g}"
        )


def lesson_of(asked: TuneObjectiveSettings, *, same: bool) -> Lesson:
    """`same`: whether student and teacher number tokens alike."""
    labels = 0.0 if asked.own_share else 0.5
    return Lesson(
        asked.divergence or ("forward" if same else "sorted"),
        0.5 if asked.beta is None else asked.beta,
        1.0 if asked.temperature is None else asked.temperature,
        labels if asked.label_weight is None else asked.label_weight,
    )


@dataclass(frozen=True, slots=True)
class Imitation:
    """What the student makes of rows that it was not trained on; all a token that counts."""

    loss: float
    tokens: int
    nats: float
    divergence: float
    """At the temperature; between different vocabularies, of tokens before which both have read the same."""
    accuracy: float
    teacher: float | None = None
    """Nats of the teacher; None where it has other tokens."""
    agreement: float | None = None
    """How often student and teacher hold the same token for the likeliest; None where they have other tokens."""
    aligned: float | None = None
    """Share of the tokens before which a teacher with other tokens has read the same."""
    hidden: float | None = None
    """Distance of what layers put out; None where none learns."""

    def metrics(self) -> dict[str, float]:
        found = {
            "heldout_loss": self.loss,
            "heldout_nats": self.nats,
            "heldout_divergence": self.divergence,
            "heldout_accuracy": self.accuracy,
            "heldout_teacher_nats": self.teacher,
            "heldout_agreement": self.agreement,
            "heldout_aligned": self.aligned,
            "heldout_hidden": self.hidden,
        }
        return {name: value for name, value in found.items() if value is not None}

    def __str__(self) -> str:
        agreeing = "" if self.agreement is None else f", {self.agreement:.1%} as the teacher"
        layers = "" if self.hidden is None else f", of layers {self.hidden:.4f}"
        teacher = "" if self.teacher is None else f" (the teacher {self.teacher:.4f})"
        return (
            f"loss {self.loss:.4f}, divergence {self.divergence:.4f}{layers}{agreeing}; "
            f"{self.nats:.4f} nats a target{teacher}, {self.accuracy:.1%} right, over {self.tokens:,} targets"
        )


@torch.no_grad()
def measured(examples: Examples, loss_of: LossOf, size: int, most: int | None, tick: Tick | None) -> Imitation:
    """Over one epoch of examples, or about `most` of their targets spread evenly over it."""
    numbers, sums, tokens, total = spread(examples, most), Counter[str](), 0, 0.0
    for start in range(0, len(numbers), size):
        loss = loss_of(examples.batch([(0, number) for number in numbers[start : start + size]]))
        total, tokens = total + float(loss.sum), tokens + loss.counted
        sums.update({name: float(value) for name, value in loss.metrics.items()})
        if tick is not None:
            tick(tokens)
    of = {name: value / tokens for name, value in sums.items()}
    aligned = of.get("aligned")
    apart = of["divergence"] if aligned is None else of["divergence"] / max(aligned, 1 / tokens)
    return Imitation(
        total / tokens,
        tokens,
        of["nats"],
        apart,
        of["right"],
        of.get("teacher"),
        of.get("agreeing"),
        aligned,
        of.get("hidden"),
    )
