"""Muon: momentum whose every step is the nearest orthogonal matrix, so that all directions learn at the same pace.

Jordan 2024 (kellerjordan.github.io/posts/muon); Liu et al., arXiv 2502.16982. The arithmetic is that of
`torch.optim.Muon`, to the bit. What this one adds: it works on matrices that FSDP2 has cut into rows. Momentum is
computed on the rows; the orthogonal matrix depends on all of them, so they are gathered for it, one matrix at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from windlass.build.training.distributed.pieces import piece_of, whole

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """For parameters of shape (outputs, inputs), or stacks of such. `weight_decay` is decoupled, and scaled by the
    rate."""

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _update(parameter, parameter.grad, self.state[parameter], group)


def _update(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if "momentum_buffer" not in state:
        state["momentum_buffer"] = torch.zeros_like(gradient)
    buffer = state["momentum_buffer"]
    buffer.lerp_(gradient, 1 - group["momentum"])
    direction = orthogonal(whole(gradient.lerp(buffer, group["momentum"])))  # Nesterov's momentum looks one step ahead
    mine = piece_of(parameter)
    rows = direction[mine.first : mine.first + mine.rows.shape[0]]
    outputs, inputs = parameter.shape[-2:]
    mine.rows.mul_(1 - group["lr"] * group["weight_decay"])
    mine.rows.add_(rows, alpha=-group["lr"] * max(1.0, outputs / inputs) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix with all singular values near 1, in bfloat16, by Newton-Schulz iteration; of a stack, as
    of a mixture's experts, each matrix for itself.

    The polynomial's coefficients favour a quick rise of small singular values over exactness: they end between 0.7 and
    1.2, which serves training as well.
    """
    if matrix.ndim > 2:
        return torch.stack([orthogonal(one) for one in matrix])
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16()
    x = x.T if tall else x
    x = x / x.norm().clamp(min=_EPS)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
