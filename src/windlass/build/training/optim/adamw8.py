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
_POWERS = {"exp_avg": 3.0, "exp_avg_sq": 4.0}
_AT_ONCE = BLOCK << 10
"""Numbers that are in float32 at a time: what an update needs beside the state does not grow with the tensors."""


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
        assert parameter.grad is not None
        state["step"] += 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        chance = torch.Generator(parameter.device).manual_seed(int(step))
        values, gradients = parameter.view(-1), parameter.grad.reshape(-1)
        for start in range(0, len(values), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            first, second = (_Moment(state, name, power, part) for name, power in _POWERS.items())
            gradient = gradients[part]
            m, v = first.read().lerp_(gradient, 1 - beta1), second.read().mul_(beta2)
            v.addcmul_(gradient, gradient, value=1 - beta2)
            values[part].mul_(1 - group["lr"] * group["weight_decay"])
            scale = (v / (1 - beta2**step)).sqrt_().add_(group["eps"])
            values[part].addcdiv_(m, scale, value=-group["lr"] / (1 - beta1**step))
            first.write(m, chance)
            second.write(v, chance)

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


class _Moment:
    """A part of one moment of a parameter, a whole number of blocks; kept in float32 where the parameter is small."""

    def __init__(self, state: dict[str, Tensor], name: str, power: float, part: slice) -> None:
        self.code, self.power = state[name].view(-1)[part], power
        scales = state.get(f"{name}_scale")
        self.scale = None if scales is None else scales[part.start // BLOCK : part.stop // BLOCK]

    def read(self) -> Tensor:
        if self.scale is None:
            return self.code
        share = _blocks(self.code.float()) / _most(self.code)
        values = share.sign() * share.abs().pow(self.power) * self.scale[:, None]
        return values.view(-1)[: len(self.code)]

    def write(self, values: Tensor, chance: torch.Generator) -> None:
        if self.scale is None:
            return  # `values` is the moment itself
        blocks = _blocks(values)
        self.scale.copy_(blocks.abs().amax(1))
        share = blocks / self.scale.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        most = _most(self.code)
        place = share.abs().pow(1 / self.power) * most
        place = (place + torch.rand(place.shape, generator=chance, device=place.device)).floor_().clamp_(max=most)
        self.code.copy_((place * share.sign()).view(-1)[: len(self.code)])
