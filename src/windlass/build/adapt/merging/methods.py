"""How tensors of one name become one: pure functions, the same for whole models and for adapters.

- linear: a weighted mean (model soups: Wortsman et al., arXiv 2203.05482).
- slerp: along the arc between two vectors instead of along the chord (Shoemake, SIGGRAPH 1985).
- ties: of each task vector, which is what training added to the base, only the largest numbers; where these disagree
  about the direction the heavier side wins, and the mean is of those that agree (Yadav et al., arXiv 2306.01708).
- dare: numbers of the task vectors are dropped by chance and the others grow, so that their expectation stays; then
  they are added up (dare_linear), or agree as in ties (dare_ties) (Yu et al., arXiv 2311.03099).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 1 << 22
_PARALLEL = 1e-10
"""Of 1 - |cosine|: nearer than that the arc is the chord, and its formula would divide by nothing."""


def weighted(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The sum of `tensors` times `weights`; what has the weight 0 is not looked at."""
    total = torch.zeros_like(tensors[0])
    for tensor, weight in zip(tensors, weights, strict=True):
        if weight:
            total.add_(tensor, alpha=weight)
    return total


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """The point at `share` (0: first, 1: second) of the arc between two tensors, each taken as one long vector. Two of
    equal length give one of that length."""
    lengths = math.sqrt(dot(first, first) * dot(second, second))
    cosine = dot(first, second) / lengths if lengths else 1.0
    if 1 - abs(cosine) < _PARALLEL:
        return weighted([first, second], [1 - share, share])
    angle = math.acos(cosine)
    parts = [math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)]
    return weighted([first, second], parts)


def trimmed(delta: Tensor, density: float) -> Tensor:
    """The largest numbers of a task vector, a share of `density`, and 0 for the others. Those of the same size as the
    smallest one that stays stay too, so that nothing hangs on an order."""
    stay = max(1, int(density * delta.numel()))
    if stay >= delta.numel():
        return delta
    sizes = delta.abs()
    least = sizes.flatten().kthvalue(delta.numel() - stay + 1).values
    return delta * (sizes >= least)


def dropped(delta: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each number stays with the probability `density` and is divided by it, else it is 0: the expectation stays."""
    if density >= 1:
        return delta
    return delta * (torch.rand(delta.shape, generator=generator) < density) / density


def agreed(tensors: Sequence[Tensor], votes: Sequence[Tensor], counts: Sequence[float]) -> Tensor:
    """Number by number the sum of those `tensors` whose vote has the sign that the votes have in sum, over the sum of
    their `counts`; where nobody votes, 0."""
    positive = weighted(votes, [1.0] * len(votes)) >= 0
    total, count = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[0])
    for tensor, vote, own in zip(tensors, votes, counts, strict=True):
        agrees = torch.where(positive, vote > 0, vote < 0)
        total += tensor * agrees
        count += own * agrees
    return total / torch.where(count == 0, 1.0, count)


def chance(seed: int, name: str, number: int) -> torch.Generator:
    """Decides which numbers of the tensor `name` of the model `number` are dropped, in whatever order tensors come."""
    digest = hashlib.sha256(f"{seed}/{number}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def dot(first: Tensor, second: Tensor) -> float:
    """Of two tensors as long vectors, in float64, which a cosine near 1 needs, but of a block at a time."""
    blocks = zip(torch.split(first.flatten(), _BLOCK), torch.split(second.flatten(), _BLOCK), strict=True)
    return sum(float(one.double() @ other.double()) for one, other in blocks)
