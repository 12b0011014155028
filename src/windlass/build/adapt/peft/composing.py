"""Several adapters of one base as one: their weighted sum, an average where the weights sum to one.

`cat` adds up what the adapters add, exactly: ranks side by side. `svd` is the best approximation of that sum with a
rank of your choice (Eckart and Young, 1936), and says what it lost. `linear` adds up the thin matrices themselves, for
the sake of those who compare with PEFT: the rank stays, but every A then meets every B, and so two equal adapters with
half the weight each give twice what one of them gives.

`ties`, `dare_linear` and `dare_ties` (`merging.methods`) leave out what is small, or what chance picks, and what the
others contradict: as PEFT has them, of the thin matrices one by one; with `_svd` behind the name, of what the adapters
add, which is what the papers mean, and then of that the nearest of a small rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from windlass.build.adapt.merging.methods import agreed, chance, dropped, trimmed, weighted
from windlass.build.transformer.adapters.parts import Adapter, LowRank, Part, Rescaled
from windlass.core.errors import InputError, Unsupported

How = Literal[
    "cat", "linear", "svd", "ties", "dare_linear", "dare_ties", "ties_svd", "dare_linear_svd", "dare_ties_svd"
]  # fmt: skip
HOWS: tuple[How, ...] = get_args(How)
Weighed = Sequence[tuple[LowRank, float]]


@dataclass(frozen=True, slots=True)
class Combined:
    adapter: Adapter
    lost: float
    """How far what is added lies from the exact sum, as a share of its length; at worst over all maps."""


@dataclass(frozen=True, slots=True)
class _Thinning:
    """What of each tensor goes into a sum."""

    method: str
    density: float
    seed: int

    def sum(self, name: str, tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """As PEFT has it: signs are elected before anything is weighted; of those that agree it is the plain mean."""
        if self.method == "ties":
            tensors = [trimmed(tensor, self.density) for tensor in tensors]
        elif self.method.startswith("dare"):
            each = enumerate(tensors)
            tensors = [dropped(one, self.density, chance(self.seed, name, number)) for number, one in each]
        if self.method.endswith("ties"):
            shares = [tensor * weight for tensor, weight in zip(tensors, weights, strict=True)]
            return agreed(shares, tensors, [1.0] * len(shares))
        return weighted(tensors, weights)


@torch.no_grad()
def combined(
    adapters: Sequence[tuple[Adapter, float]],
    how: How = "cat",
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
) -> Combined:
    """The sum of adapters with their weights. `rank` is for ways that end in `svd`; left out, the largest that an
    adapter has there. `density`: share of the numbers that stay, for `ties` and `dare`; `seed`: of what `dare` drops.

    Raises `Unsupported` for kinds whose sum is no adapter, and `InputError` for what does not fit together.
    """
    if len(adapters) < 2:
        raise InputError("There is nothing to combine.", "Name two adapters or more, of one base.")
    for adapter, weight in adapters:
        _check(adapter, weight)
    if rank is not None and (not how.endswith("svd") or rank < 1):
        raise InputError(f"The rank {rank} was asked for with '{how}'.", "A rank, of at least 1, is for 'svd'.")
    method = how.removesuffix("svd").removesuffix("_")
    thins, share = method not in ("", "cat", "linear"), 1.0 if density is None else density
    if thins != (density is not None) or not 0 < share <= 1:
        said = "no density was asked for" if density is None else f"the density {density:g} was asked for"
        raise InputError(f"With '{how}', {said}.", "One, more than 0 and at most 1, is for 'ties' and 'dare'.")
    thinning = _Thinning(method, share, seed)
    parts: dict[str, Part] = {}
    lost = 0.0
    for name in sorted({name for adapter, _ in adapters for name in adapter.parts}):
        low = [(part, weight) for one, weight in adapters if isinstance(part := one.parts.get(name), LowRank)]
        factors = [(part, weight) for one, weight in adapters if isinstance(part := one.parts.get(name), Rescaled)]
        if low and factors:
            raise Unsupported(f"At {name} one adapter adds and another one rescales.", "Combine adapters of one kind.")
        if factors and thins:
            raise Unsupported(f"At {name} adapters rescale, which '{how}' cannot combine.", "Choose 'linear'.")
        if factors:
            parts[name] = _rescaled(name, factors)
            continue
        exact = _side_by_side(low)
        if how == "cat":
            found = exact
        elif how == "svd":
            found = _nearest(exact, low, rank)
        else:
            found = _of_product(name, low, rank, thinning) if how.endswith("svd") else _added(name, low, thinning)
        parts[name], lost = found, max(lost, _missing(exact, found))
    return Combined(Adapter(parts), lost)


def _check(adapter: Adapter, weight: float) -> None:
    if adapter.virtual is not None or adapter.whole or adapter.rows:
        kind = "positions before every text" if adapter.virtual is not None else "tensors that were trained as they are"
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


def _added(name: str, parts: Weighed, thinning: _Thinning) -> LowRank:
    """Of each of the two matrices the sum: the root of each weight on either side, its sign on A, as PEFT has it."""
    if len(ranks := sorted({part.rank for part, _ in parts})) > 1:
        raise InputError(
            f"At {name} the adapters have the ranks {ranks}, but matrices of one shape are to be added.",
            "Choose 'cat', or a way that ends in 'svd'.",
        )
    roots = [math.sqrt(abs(weight * part.scale)) for part, weight in parts]
    signed = [math.copysign(root, weight) for root, (_, weight) in zip(roots, parts, strict=True)]
    down_RK = thinning.sum(f"{name} A", [part.down_RK for part, _ in parts], signed)
    up_NR = thinning.sum(f"{name} B", [part.up_NR for part, _ in parts], roots)
    return LowRank(down_RK, up_NR, float(len(down_RK)))


def _of_product(name: str, parts: Weighed, rank: int | None, thinning: _Thinning) -> LowRank:
    """Of what each adapter adds the sum, and of that the nearest of a small rank."""
    products = [part.scale * (part.up_NR @ part.down_RK) for part, _ in parts]
    total_NK = thinning.sum(name, products, [weight for _, weight in parts])
    rank = min(rank or max(part.rank for part, _ in parts), *total_NK.shape)
    u, values, vh = torch.linalg.svd(total_NK.double(), full_matrices=False)
    up_NR = (u[:, :rank] * values[:rank]).float().contiguous()
    return LowRank(vh[:rank].float().contiguous(), up_NR, float(rank))


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
    factors = weighted([part.factors for part, _ in parts], [weight for _, weight in parts])
    return Rescaled(factors, parts[0][0].on_input)


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
