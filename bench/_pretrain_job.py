"""What every contender of `bench.pretrain` gets: the same shape, weights, batches and schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OnStep = Callable[[float], None]
"""Told the loss after every step; may block until the contender's next turn."""


@dataclass(frozen=True)
class Job:
    folder: Path
    """Holds `train.npy` and `heldout.npy`, windows of context + 1 tokens, and `start/model.safetensors`."""
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    context: int
    batch: int
    steps: int
    rate: float
    warmup: int
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0

    @property
    def batch_tokens(self) -> int:
        return self.batch * self.context

    def windows(self, split: str = "train") -> NDArray[Any]:
        """Windows in the order in which they are trained on, shape (windows, context + 1)."""
        found: NDArray[Any] = np.load(self.folder / f"{split}.npy", mmap_mode="r")
        return found

    def weights(self) -> dict[str, Any]:
        """The starting weights under Hugging Face's names."""
        from safetensors.torch import load_file

        return dict(load_file(self.folder / "start" / "model.safetensors"))

    def multiplier(self, step: int) -> float:
        """Of the rate: a linear warm-up times half a cosine to zero."""
        return min(1.0, (step + 1) / (self.warmup + 1)) * 0.5 * (1 + math.cos(math.pi * step / self.steps))
