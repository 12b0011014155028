"""Several adapters of one base as one: their weighted sum, an average where the weights sum to one.

`cat` adds up what the adapters add, exactly: ranks side by side. `svd` is the best approximation of that sum with a
rank of your choice (Eckart and Young, 1936), and says what it lost. `linear` adds up the thin matrices themselves, for
the sake of those who compare with PEFT: the rank stays, but every A then meets every B, and so two equal adapters with
half the weight each give twice what one of them gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from windlass.build.transformer.adapters.parts import Adapter, LowRank, Part, Rescaled
from windlass.core.errors import InputError, Unsupported

How = Literal["cat", "linear", "svd"]
Weighed = Sequence[tuple[LowRank, float]]


@dataclass(frozen=True, slots=True)
class Combined:
    adapter: Adapter
    lost: float
    """How far what is added lies from the exact sum, as a share of its length; at worst over all maps."""


@torch.no_grad()
def combined(adapters: Sequence[tuple[Adapter, float]], how: How = "cat", rank: int | None = None) -> Combined:
    """The sum of adapters with their weights. `rank` is for `svd`; left out, the largest that an adapter has there.

    Raises `Unsupported` for kinds whose sum is no adapter, and `InputError` for what does not fit together.
    """
    if len(adapters) < 2:
        raise InputError("There is nothing to combine.", "Name two adapters or more, of one base.")
    for adapter, weight in adapters:
        _check(adapter, weight)
    if rank is not None and (how != "svd" or rank < 1):
        raise InputError(f"The rank {rank} was asked for with '{how}'.", "A rank, of at least 1, is for 'svd'.")
    parts: dict[str, Part] = {}
    lost = 0.0
    for name in sorted({name for adapter, _ in adapters for name in adapter.parts}):
        low = [(part, weight) for one, weight in adapters if isinstance(part := one.parts.get(name), LowRank)]
        factors = [(part, weight) for one, weight in adapters if isinstance(part := one.parts.get(name), Rescaled)]
        if low and factors:
            raise Unsupported(f"At {name} one adapter adds and another one rescales.", "Combine adapters of one kind.")
        if factors:
            parts[name] = _rescaled(name, factors)
            continue
        exact = _side_by_side(low)
        found = exact if how == "cat" else _added(name, low) if how == "linear" else _nearest(exact, low, rank)
        parts[name], lost = found, max(lost, _missing(exact, found))
    return Combined(Adapter(parts), lost)


def _check(adapter: Adapter, weight: float) -> None:
    if adapter.virtual is not None or adapter.whole:
        kind = "tensors that were trained as they are" if adapter.virtual is None else "positions before every text"
        raise Unsupported(f"An adapter with {kind} cannot be added to another one.", "Combine LoRA or (IA)3 adapters.")
    if any(isinstance(part, LowRank) and part.magnitude_N is not None for part in adapter.parts.values()):
        raise Unsupported(
            "DoRA scales what base and adapter give together, so the sum of two is none.",
            "Merge each into the base, and combine the models.",
        )
    if not math.isfinite(weight) or not weight:
        raise InputError(f"An adapter has the weight {weight:g}.", "Leave it out, or give it another weight.")


def _side_by_side(parts: Weighed) -> LowRank:
    """All ranks, each adapter's scale and weight in its A, as PEFT's 'cat' has it."""
    down_RK = torch.cat([part.down_RK * (weight * part.scale) for part, weight in parts])
    return LowRank(down_RK, torch.cat([part.up_NR for part, _ in parts], dim=1), float(len(down_RK)))


def _added(name: str, parts: Weighed) -> LowRank:
    """As PEFT's 'linear': the root of each weight on either side, its sign on A."""
    if len(ranks := sorted({part.rank for part, _ in parts})) > 1:
        raise InputError(
            f"At {name} the adapters have the ranks {ranks}, but 'linear' adds matrices of one shape.",
            "Choose 'cat' or 'svd'.",
        )
    roots = [math.sqrt(abs(weight * part.scale)) for part, weight in parts]
    down_RK = sum_of([math.copysign(root, weight) * part.down_RK for root, (part, weight) in zip(roots, parts)])
    up_NR = sum_of([root * part.up_NR for root, (part, _) in zip(roots, parts)])
    return LowRank(down_RK, up_NR, float(len(down_RK)))


def _nearest(exact: LowRank, parts: Weighed, rank: int | None) -> LowRank:
    """The product's singular values are those of the small matrix between two orthogonal ones, so that the large
    product is never made."""
    rank = min(rank or max(part.rank for part, _ in parts), exact.rank, *exact.up_NR.shape[:1], exact.down_RK.shape[1])
    left_NQ, upper = torch.linalg.qr(exact.up_NR.double())
    right_KQ, lower = torch.linalg.qr(exact.down_RK.double().T)
    u, values, vh = torch.linalg.svd(upper @ lower.T)
    up_NR = left_NQ @ (u[:, :rank] * values[:rank])
    return LowRank((vh[:rank] @ right_KQ.T).float(), up_NR.float().contiguous(), float(rank))


def _rescaled(name: str, parts: Sequence[tuple[Rescaled, float]]) -> Rescaled:
    """The weighted sum of the factors, as PEFT has it: with weights that sum to one, their average."""
    if len({part.on_input for part, _ in parts}) > 1:
        raise InputError(f"At {name} one adapter rescales inputs and another one outputs.", "They cannot be combined.")
    return Rescaled(sum_of([part.factors * weight for part, weight in parts]), parts[0][0].on_input)


def _missing(exact: LowRank, found: LowRank) -> float:
    if found is exact:
        return 0.0
    difference = LowRank(
        torch.cat([exact.down_RK, found.down_RK * -found.scale]), torch.cat([exact.up_NR, found.up_NR], dim=1), 1.0
    )
    whole = _square(exact)
    return math.sqrt(max(_square(difference), 0.0) / whole) if whole else 0.0


def _square(part: LowRank) -> float:
    """Of all numbers of B A, summed: from products of thin matrices alone."""
    down, up = part.down_RK.double(), part.up_NR.double()
    return float(((down @ down.T) * (up.T @ up)).sum())


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).sum(0)
