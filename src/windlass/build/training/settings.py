"""What a person may ask of a pre-training run; everything else follows from it (see `recipe`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    depth: int = 4
    """The dial: number of layers, from which width, heads, batch and learning rates are derived."""
    minutes: float | None = None
    """Training takes no longer, compiling included; reading the text before it and scoring the held-out text after it
    come on top. Without `steps`: default 3."""
    steps: int | None = None
    """A fixed number of optimizer steps instead of a time budget: the exactly repeatable mode."""
    name: str = "model"
    seed: int = 0
    kinds: tuple[str, ...] | None = None
    """Kinds of documents to train on; None: all but docstrings, which the source holds already."""
    context: int | None = None
    """Tokens that the model reads; None: derived."""
    batch: int | None = None
    """Sequences per step; None: derived."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the activations. Weights, gradients and optimizer stay in float32."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """`torch.compile`; auto uses it when there is a C++ compiler and time enough to earn its cost back."""
    checkpoint_seconds: float = 20.0
    checkpoint_steps: int | None = None
    """Save every so many steps instead of by the clock."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise InputError(f"--depth is {self.depth}, but a model needs at least 1 layer.")
        if self.minutes is not None and self.steps is not None:
            raise InputError("Both --minutes and --steps are given.", "Give the one that should end the training.")
        if self.minutes is not None and self.minutes <= 0:
            raise InputError(f"--minutes is {self.minutes:g}, but must be more than 0.")
        for name in ("steps", "context", "batch", "checkpoint_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} is {value}, but must be at least 1.")

    @property
    def budget_s(self) -> float | None:
        """Seconds of the time budget, None when the number of steps is fixed."""
        if self.steps is not None:
            return None
        return 60.0 * (3.0 if self.minutes is None else self.minutes)
