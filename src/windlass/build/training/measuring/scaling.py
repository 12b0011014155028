"""Scaling laws: how the loss falls with parameters and tokens, fitted to a few small runs.

    loss(N, D) = E + A / N^a + B / D^b

after Hoffmann et al. (arXiv 2203.15556, section 3.3 and appendix D.2): E is what no model can spell shorter, the other
terms are what N parameters and D tokens still lack. N counts the weights that multiply: blocks and head.

For fixed exponents the law is linear in E, A and B, and none of them may be negative. So the fit searches two numbers
only, on a grid that closes in, and solves the rest exactly: no starting point decides the result. Errors are relative
and weighed by Huber's rule, so that one run that went wrong does not bend the law.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError

Vector = NDArray[np.float64]

FEWEST = 5
"""Runs: as many as the law has constants."""
_EXPONENTS = (0.02, 1.5)
_GRID, _ZOOMS, _ROUNDS = 11, 7, 3
_HUBER = 1.345
"""Errors beyond so many deviations count less; 95 % as good as least squares when there are none (Huber 1964)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One finished run."""

    parameters: float
    tokens: float
    loss: float
    """Held-out, in nats a token."""


@dataclass(frozen=True, slots=True)
class Law:
    floor: float
    """E"""
    width: float
    """A"""
    alpha: float
    """a, the exponent of the parameters"""
    data: float
    """B"""
    beta: float
    """b, the exponent of the tokens"""

    def loss(self, parameters: float, tokens: float) -> float:
        return float(self.floor + self.width / parameters**self.alpha + self.data / tokens**self.beta)


@dataclass(frozen=True, slots=True)
class Fitted:
    observations: tuple[Observation, ...]
    law: Law
    others: tuple[Law, ...]
    """Fitted to data drawn again (bootstrap): how uncertain `law` is."""
    noise: tuple[float, ...]
    """Relative errors of the observations, widened for the constants that were fitted."""

    def predict(
        self, parameters: float, tokens: float, share: float = 0.9, seed: int = 0
    ) -> tuple[float, float, float]:
        """The loss of another run, and the interval that holds it with probability `share`: the law's uncertainty and
        a run's own noise together."""
        chance = np.random.default_rng(seed)
        noise = chance.choice(np.array(self.noise), size=len(self.others))
        drawn = np.array([law.loss(parameters, tokens) for law in self.others]) * (1 + noise)
        low, high = np.quantile(drawn, [(1 - share) / 2, (1 + share) / 2])
        return self.law.loss(parameters, tokens), float(low), float(high)

    def interval(self, name: str, share: float = 0.9) -> tuple[float, float]:
        """Of one constant of the law."""
        low, high = np.quantile([getattr(law, name) for law in self.others], [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)


def fit(observations: Sequence[Observation], *, draws: int = 200, seed: int = 0) -> Fitted:
    """Fits the law, and again `draws` times to its own values with the errors drawn anew.

    Raises `InputError` for fewer runs than constants, when all runs have the same size or length, and for a loss that
    is no positive number.
    """
    _check(observations)
    sizes, tokens, losses = (
        np.array([getattr(o, name) for o in observations], dtype=np.float64)
        for name in ("parameters", "tokens", "loss")
    )
    law = _fitted(sizes, tokens, losses)
    ideal = np.array([law.loss(n, d) for n, d in zip(sizes, tokens)])
    errors = losses / ideal - 1
    errors = (errors - errors.mean()) * np.sqrt(len(errors) / max(1, len(errors) - FEWEST))
    chance = np.random.default_rng(seed)
    others = [_fitted(sizes, tokens, ideal * (1 + chance.choice(errors, size=len(errors)))) for _ in range(draws)]
    return Fitted(tuple(observations), law, tuple(others), tuple(errors.tolist()))


def _check(observations: Sequence[Observation]) -> None:
    if len(observations) < FEWEST:
        raise InputError(
            f"{len(observations)} runs are too few for a law of {FEWEST} constants.", "Run more sizes or more lengths."
        )
    for name, what in (("parameters", "size"), ("tokens", "number of tokens")):
        if len({getattr(o, name) for o in observations}) < 2:
            raise InputError(f"All runs have the same {what}, so nothing can be said about others.", "Vary it.")
    for o in observations:
        if not (0 < o.loss < float("inf") and o.parameters > 0 and o.tokens > 0):
            raise InputError(
                f"A run with loss {o.loss}, {o.parameters:g} parameters and {o.tokens:g} tokens is no run."
            )


def _fitted(sizes: Vector, tokens: Vector, losses: Vector) -> Law:
    # Around 1 the powers stay of one magnitude, whatever the exponents.
    size, length = np.exp(np.log(sizes).mean()), np.exp(np.log(tokens).mean())
    weights = 1 / losses**2
    law = None
    for _ in range(_ROUNDS):
        law = _search(sizes / size, tokens / length, losses, weights)
        errors = np.array([law.loss(n, d) for n, d in zip(sizes / size, tokens / length)]) / losses - 1
        deviation = max(1.4826 * float(np.median(np.abs(errors))), 1e-6)
        weights = np.minimum(1.0, _HUBER * deviation / np.maximum(np.abs(errors), 1e-12)) / losses**2
    assert law is not None
    return Law(law.floor, law.width * size**law.alpha, law.alpha, law.data * length**law.beta, law.beta)


def _search(sizes: Vector, tokens: Vector, losses: Vector, weights: Vector) -> Law:
    """Both exponents on a grid, ever finer around the best."""
    (low_a, high_a), (low_b, high_b) = _EXPONENTS, _EXPONENTS
    for _ in range(_ZOOMS):
        alphas, betas = (np.geomspace(low, high, _GRID) for low, high in ((low_a, high_a), (low_b, high_b)))
        grid_a, grid_b = (g.ravel() for g in np.meshgrid(alphas, betas, indexing="ij"))
        constants, costs = _solve(sizes[None] ** -grid_a[:, None], tokens[None] ** -grid_b[:, None], losses, weights)
        best = int(costs.argmin())
        alpha, beta = float(grid_a[best]), float(grid_b[best])
        (low_a, high_a), (low_b, high_b) = (_around(alphas, best // _GRID), _around(betas, best % _GRID))
    floor, width, data = constants[best]
    return Law(float(floor), float(width), alpha, float(data), beta)


def _around(values: Vector, place: int) -> tuple[float, float]:
    return float(values[max(place - 1, 0)]), float(values[min(place + 1, len(values) - 1)])


def _solve(wide: Vector, long: Vector, losses: Vector, weights: Vector) -> tuple[Vector, Vector]:
    """Non-negative E, A, B of least weighted squares for every pair of exponents (G), and their cost.

    With three constants, trying which of them are zero is exact and quicker than searching. Taking the weighted mean
    away first solves for E without a third unknown, and keeps nearly parallel columns apart.
    """
    best = np.full(len(wide), np.inf)
    constants = np.zeros((len(wide), 3))
    shares = weights / weights.sum()
    for with_floor, with_wide, with_long in itertools.product((True, False), repeat=3):
        middle = [np.zeros((len(wide), 1))] * 2
        target_mean = 0.0
        if with_floor:
            middle = [(column @ shares)[:, None] for column in (wide, long)]
            target_mean = float(losses @ shares)
        x, y = (wide - middle[0]) * with_wide, (long - middle[1]) * with_long
        width, data = _two(x, y, losses - target_mean, weights)
        floor = target_mean - width * middle[0][:, 0] - data * middle[1][:, 0]
        errors = floor[:, None] + width[:, None] * wide + data[:, None] * long - losses
        cost = (weights * errors**2).sum(-1)
        better = (floor >= 0) & (width >= 0) & (data >= 0) & (cost < best)
        best = np.where(better, cost, best)
        constants = np.where(better[:, None], np.stack([floor, width, data], axis=-1), constants)
    return constants, best


def _two(x: Vector, y: Vector, target: Vector, weights: Vector) -> tuple[Vector, Vector]:
    """Least squares of target on two columns, by Cramer's rule; a column of zeros has the factor zero."""
    xx, yy, xy = ((weights * a * b).sum(-1) for a, b in ((x, x), (y, y), (x, y)))
    xt, yt = ((weights * a * target).sum(-1) for a in (x, y))
    only_x, only_y = (np.divide(t, s, out=np.zeros_like(t), where=s > 0) for t, s in ((xt, xx), (yt, yy)))
    determinant = xx * yy - xy**2
    both = determinant > 1e-14 * xx * yy
    safe = np.where(both, determinant, 1.0)
    return np.where(both, (xt * yy - yt * xy) / safe, only_x), np.where(both, (yt * xx - xt * xy) / safe, only_y)
