"""What is to be seen of one step: means and largest values, collected pass by pass."""

from __future__ import annotations

import torch
from torch import Tensor


class Tally:
    """Sums stay on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._largest: dict[str, Tensor] = {}

    def begin(self) -> None:
        """A new step."""
        self._sums, self._counts, self._largest = {}, {}, {}

    @torch.no_grad()
    def mean(self, name: str, values: Tensor) -> None:
        """Adds values to the mean of that name."""
        self._sums[name] = self._sums.get(name, torch.zeros((), device=values.device)) + values.float().sum()
        self._counts[name] = self._counts.get(name, 0) + values.numel()

    @torch.no_grad()
    def largest(self, name: str, values: Tensor) -> None:
        most = values.float().max()
        known = self._largest.get(name)
        self._largest[name] = most if known is None else torch.maximum(known, most)

    def read(self) -> dict[str, float]:
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        return means | {name: float(value) for name, value in self._largest.items()}
