"""How fast training goes: tokens a second, and the share of the machine's arithmetic that the model's own takes up.

Model FLOPs utilisation (Chowdhery et al., arXiv 2204.02311, appendix B) divides what the model needs by what the
machine could have done in the same time. The need is counted from the shapes (`flops`), so work done twice, such as
checkpointed activations, does not raise it. What the machine could do is its peak in matrix products: the vendor's
figure for known accelerators, measured for everything else.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import torch

PEAKS_BF16: dict[str, float] = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10G": 70e12,
    "A10": 125e12,
    "RTX 5090": 209.5e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
    "MI300X": 1307e12,
    "MI250X": 191.5e12,
}
"""Dense bfloat16 products with float32 sums, FLOP/s of one device, from the vendors' data sheets (no sparsity).

Looked up by substring in this order, so a longer name stands before the name that it contains. An MI250X is seen as two
devices."""

_SIZE = 1024
_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that matrix products reach."""

    flops: float
    """Floating-point operations a second, of all devices together."""
    source: str
    """Where the figure comes from, for the person who watches."""


def peak(dtype: torch.dtype, device: torch.device | str = "cpu", *, devices: int = 1) -> Peak:
    """The peak of `devices` equal devices in products of `dtype`: known by name, or measured here on one of them."""
    device = torch.device(device)
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        known = known_peak(name)
        if known is not None and dtype == torch.bfloat16:
            return Peak(known * devices, f"{name}, data sheet")
    return Peak(measured_peak(dtype, str(device), torch.get_num_threads()) * devices, "measured")


def known_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of an accelerator by the name that its driver gives, None when it is not in the table."""
    return next((flops for part, flops in PEAKS_BF16.items() if part.lower() in name.lower()), None)


@lru_cache(maxsize=8)
def measured_peak(dtype: torch.dtype, device: str = "cpu", threads: int = 0) -> float:
    """FLOP/s of the best of many square products, a quarter of a second's worth. `threads` only tells results apart.

    The best, not the mean: others who use the machine can only make a product slower.
    """
    size = _SIZE if device == "cpu" else 8 * _SIZE
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    until = time.perf_counter() + _SECONDS
    products = 0
    while time.perf_counter() < until or products < 4:
        began = time.perf_counter()
        torch.matmul(a, b)
        if device != "cpu":
            torch.accelerator.synchronize(device)
        if products:  # the first one warms up
            best = min(best, time.perf_counter() - began)
        products += 1
    return 2 * size**3 / best


@dataclass(frozen=True, slots=True)
class Speed:
    tokens_per_s: float
    mfu: float
    """Model FLOPs utilisation, 0 to 1."""


class Meter:
    """Adds up what steps did and how long they took; what happens between steps is in neither."""

    def __init__(self, peak_flops: float, *, window: int = 50) -> None:
        """`peak_flops`: what the machine could do a second. `window`: so many steps are `recent`."""
        if peak_flops <= 0:
            raise ValueError(f"a meter needs a positive peak, not {peak_flops:g} FLOP/s")
        self._peak_flops = peak_flops
        self._steps: deque[tuple[int, float, float]] = deque(maxlen=window)

    def add(self, tokens: int, flops: float, seconds: float) -> Speed:
        """One more step and its speed: `tokens` were trained on, which needs `flops`."""
        self._steps.append((tokens, flops, seconds))
        return self._speed(tokens, flops, seconds)

    @property
    def recent(self) -> Speed:
        """Over the last steps: what the run does now, compilation of the first steps forgotten."""
        if not self._steps:
            raise ValueError("the meter has seen no step yet")
        tokens, flops, seconds = (sum(column) for column in zip(*self._steps))
        return self._speed(tokens, flops, seconds)

    def _speed(self, tokens: float, flops: float, seconds: float) -> Speed:
        return Speed(tokens / seconds, flops / seconds / self._peak_flops)
