"""AdamW whose moments take one byte a number instead of four (Dettmers et al., arXiv 2110.02861).

Both moments are cut into blocks, and each block keeps its largest value; a number is stored as a power of its share of
that, so that small numbers, of which there are most, lie on a fine grid. The second moment stands in a denominator and
must not become zero, hence its higher power. What lies between two steps of the grid is rounded up or down by chance:
a moment that changes by less than a step would otherwise not change at all. The chance is a function of the step's
number, so that a resumed run repeats it. Small tensors stay in float32: there is nothing to save, and much to lose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import ParamsT

from windlass.core.errors import Unsupported

BLOCK = 256
_SMALL = 4096
_FIRST_POWER = 3.0
_SECOND_POWER = 4.0


class AdamW8(torch.optim.Optimizer):
    """Decoupled weight decay and bias correction as in `torch.optim.AdamW`."""

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("AdamW8 takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state.update(self.fresh(parameter))
        gradient = parameter.grad
        assert gradient is not None
        small = parameter.numel() < _SMALL
        first = state["exp_avg"] if small else _read(state["exp_avg"], state["exp_avg_scale"], _FIRST_POWER)
        second = state["exp_avg_sq"] if small else _read(state["exp_avg_sq"], state["exp_avg_sq_scale"], _SECOND_POWER)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = float(state["step"])
        first.lerp_(gradient, 1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(first, scale, value=-group["lr"] / (1 - beta1**step))
        if not small:
            chance = torch.Generator(parameter.device).manual_seed(int(step))
            _write(first, state["exp_avg"], state["exp_avg_scale"], _FIRST_POWER, chance)
            _write(second, state["exp_avg_sq"], state["exp_avg_sq_scale"], _SECOND_POWER, chance)

    @staticmethod
    def fresh(parameter: Tensor) -> dict[str, Tensor]:
        """The state before the first step. Raises `Unsupported` for a parameter that FSDP2 has cut into rows."""
        if isinstance(parameter, DTensor):
            raise Unsupported("adamw8 cannot train a model that is spread by FSDP.", "Use --parallel ddp, or adamw.")
        step = torch.zeros((), device=parameter.device)
        if parameter.numel() < _SMALL:
            return {"step": step, "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        scales = torch.zeros(-(-parameter.numel() // BLOCK), device=parameter.device)
        return {
            "step": step,
            "exp_avg": torch.zeros_like(parameter, dtype=torch.int8),
            "exp_avg_scale": scales,
            "exp_avg_sq": torch.zeros_like(parameter, dtype=torch.uint8),
            "exp_avg_sq_scale": scales.clone(),
        }


def _blocks(values: Tensor) -> Tensor:
    """As rows of `BLOCK` numbers, filled up with zeros."""
    flat = values.reshape(-1)
    return F.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)


def _most(code: Tensor) -> int:
    return torch.iinfo(code.dtype).max


def _read(code: Tensor, scale: Tensor, power: float) -> Tensor:
    share = _blocks(code.float()) / _most(code)
    values = share.sign() * share.abs().pow(power) * scale[:, None]
    return values.view(-1)[: code.numel()].view(code.shape)


def _write(values: Tensor, code: Tensor, scale: Tensor, power: float, chance: torch.Generator) -> None:
    blocks = _blocks(values)
    scale.copy_(blocks.abs().amax(1))
    share = blocks / scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    place = share.abs().pow(1 / power) * _most(code)
    place = (place + torch.rand(place.shape, generator=chance, device=place.device)).floor_().clamp_(max=_most(code))
    rounded = place * share.sign()
    code.copy_(rounded.view(-1)[: code.numel()].view(code.shape))
