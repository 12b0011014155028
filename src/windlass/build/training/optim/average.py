"""An exponential moving average of the weights.

The average of the last steps' weights is often better than the last weights, as it stands nearer to the middle of the
valley whose walls they bounce between (Polyak and Juditsky 1992; for language models: Morales-Brotons et al., arXiv
2411.18704). It costs the memory of one more copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Average:
    """`update` after each step. `tensors` is the average itself, by the weights' names."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.tensors: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._trained()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """`step` counts from 1. The first steps weigh more than the decay says, or the start would be remembered."""
        decay = min(self._decay, step / (step + 10))
        weights = [p.detach() for _, p in self._trained()]
        torch._foreach_lerp_(list(self.tensors.values()), weights, 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block the model computes with the average."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._trained():
            kept = parameter.detach().clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Frozen weights are their own average."""
        return ((name, p) for name, p in self._model.named_parameters() if p.requires_grad)
