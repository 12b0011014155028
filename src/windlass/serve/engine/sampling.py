"""From logits to the next token: greedy, or drawn at a temperature from the smallest set of probability top_p.

Nucleus sampling: Holtzman et al. (arXiv 1904.09751). A draw is one uniform number per token looked up in the
cumulative distribution, from a generator of the request's own: the same seed gives the same text, whatever else
the server is doing.
"""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass

import torch
from torch import Tensor

from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Sampling:
    temperature: float = 1.0
    """0 is greedy: always the likeliest token."""
    top_p: float = 1.0
    seed: int | None = None
    """None draws a seed, which is reported in the trace."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise InputError(f"temperature is {self.temperature}, but must be between 0 and 2.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}, but must be above 0 and at most 1.")


class Sampler:
    """The chooser of one request. `seed` is the one in use, given or drawn."""

    def __init__(self, settings: Sampling) -> None:
        self.settings = settings
        self.seed = secrets.randbits(32) if settings.seed is None else settings.seed
        self._random = random.Random(self.seed)

    def choose(self, logits: Tensor) -> int:
        """The next token given its logits, shape (vocabulary,)."""
        if self.settings.temperature == 0:
            return int(logits.argmax())
        # In float64, so that the cumulative sum over a large vocabulary still ends at 1.
        p = torch.softmax(logits.double() / max(self.settings.temperature, 1e-5), dim=0)
        if self.settings.top_p < 1:
            p, tokens = p.sort(descending=True, stable=True)
            kept = int((p.cumsum(0) < self.settings.top_p).sum()) + 1
            p = p[:kept]
        cumulative = p.cumsum(0)
        drawn = self._random.random() * float(cumulative[-1])
        place = min(int(torch.searchsorted(cumulative, drawn, right=True)), len(p) - 1)
        return int(tokens[place]) if self.settings.top_p < 1 else place
