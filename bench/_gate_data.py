"""Worlds in which a candidate may or may not deserve promotion: what a gate sees, drawn at random again and again.

In each world there are two candidates. One stands exactly at the edge of what the policy allows, and promoting it is
wrong; the other deserves it, by about as much as decides the question in half to nine tenths of all draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from bench._gate_exact import Chances, of_latent
from numpy.typing import NDArray

from windlass.evaluate.deciding import Pairs
from windlass.evaluate.gate import Rule, equivalence, non_inferiority, superiority
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.distributions import normal_quantile
from windlass.evaluate.statistics.judged import prediction_powered

Draw = Callable[[np.random.Generator, bool], Mapping[str, Pairs]]
"""From a generator and whether the candidate deserves promotion to what both systems scored."""
UNIT = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class World:
    name: str
    policy: Policy
    draw: Draw
    best: str = "paired t"
    """The best test known for such values: `paired t` (cluster-robust where there are clusters), `McNemar`, or that of
    somebody who knows more (`known`)."""
    exact: Callable[[bool], Chances] | None = None
    """Right or wrong on independent items: of what all is drawn, so that shares of promotions are exact sums."""


def right_or_wrong(n: int, gain: float) -> Draw:
    """Base 70 %, latent correlation 0.8 between the two systems; `gain` is in points of the share that is right."""
    shift = normal_quantile(0.7 + gain) - normal_quantile(0.7)

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        shared = rng.normal(size=n)
        old, new = (math.sqrt(0.8) * shared + math.sqrt(0.2) * rng.normal(size=n) for _ in range(2))
        edge = normal_quantile(0.7)
        after = new < edge + (shift if deserves else 0.0)
        return {"score": Pairs((old < edge).astype(float), after.astype(float), bounds=UNIT)}

    return draw


def right_or_wrong_chances(n: int, gain: float) -> Callable[[bool], Chances]:
    return lambda deserves: of_latent(n, 0.7, 0.7 + (gain if deserves else 0.0), 0.8)


def graded(n: int, gain: float, steps: int = 0) -> Draw:
    """Scores between 0 and 1; with `steps`, a judge's marks of so many steps, on which the two often agree."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        hardness = rng.normal(size=n)
        old, new = (
            1 / (1 + np.exp(-(hardness + rng.normal(0, 0.5, n) + lift))) for lift in (0.0, gain if deserves else 0.0)
        )
        if steps:
            old, new = np.round(old * steps) / steps, np.round(new * steps) / steps
        return {"score": Pairs(old, new, bounds=UNIT)}

    return draw


def clustered(clusters: int, gain: float, *, right: bool = False) -> Draw:
    """Items of a source succeed and fail together; sources have from 1 to some 40 items."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        sizes = np.minimum(40, rng.geometric(0.12, size=clusters))
        codes = np.repeat(np.arange(clusters), sizes)
        hardness = rng.normal(size=codes.size) + rng.normal(size=clusters)[codes]
        lean = 0.4 * rng.normal(size=clusters)[codes]
        sides = [
            hardness + rng.normal(0, 0.5, codes.size) + lift for lift in (-lean, lean + (gain if deserves else 0.0))
        ]
        old, new = ((side > 0).astype(float) if right else 1 / (1 + np.exp(-side)) for side in sides)
        return {"score": Pairs(old, new, codes, bounds=UNIT)}

    return draw


def slow(n: int, limit: float, true: float) -> Draw:
    """Log-normal times (sigma 1). At the edge the candidate takes `limit` more, else `true` more than the incumbent."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        shared = rng.normal(0, 0.9, n)
        old, new = (np.exp(shared + rng.normal(0, math.sqrt(1 - 0.81), n)) for _ in range(2))
        return {"latency_ms": Pairs(old, new * (1 + (true if deserves else limit)))}

    return draw


def rare(n: int, margin: float) -> Draw:
    """Both almost always right. At the edge the candidate loses `margin` of the items and wins none; else it loses
    hardly any."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        lost = rng.random(n) < (0.1 * margin if deserves else margin)
        return {"score": Pairs(np.ones(n), 1.0 - lost, bounds=UNIT)}

    return draw


def rare_chances(n: int, margin: float) -> Callable[[bool], Chances]:
    return lambda deserves: Chances(n, 0.0, 0.1 * margin if deserves else margin)


def rare_in_clusters(clusters: int, size: int, margin: float) -> Draw:
    """The same, where a whole source breaks at once."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        lost = np.repeat(rng.random(clusters) < (0.1 * margin if deserves else margin), size)
        return {"score": Pairs(np.ones(lost.size), 1.0 - lost, np.repeat(np.arange(clusters), size), bounds=UNIT)}

    return draw


def alike(n: int, margin: float) -> Draw:
    """Marks that differ by nothing on average, or by the margin."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        shared = rng.normal(size=n)
        old, new = (shared + rng.normal(0, 0.5, n) for _ in range(2))
        return {"score": Pairs(old, new + (0.0 if deserves else margin), bounds=(-20.0, 20.0))}

    return draw


def several(n: int) -> Draw:
    """Much better on the primary metric; at the edge it is as much slower as the guard allows, and safe enough."""

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        score = graded(n, 0.35)(rng, True)["score"]
        safe = right_or_wrong(n, 0.0)(rng, False)["score"]
        times = slow(n, 0.15, 0.0)(rng, deserves)["latency_ms"]
        return {"score": score, "safe": safe, "latency_ms": times}

    return draw


def judged(n: int, labels: int, gain: float) -> Draw:
    """Right or wrong, as a judge says that favours the candidate; people labelled some of the items.

    It passes 90 % of the incumbent's right answers and 20 % of its wrong ones, of the candidate's 94 % and 26 %.
    """

    def draw(rng: np.random.Generator, deserves: bool) -> Mapping[str, Pairs]:
        truth = right_or_wrong(n, gain)(rng, deserves)["score"]
        real = [np.asarray(side) for side in (truth.before, truth.after)]
        said = [
            (rng.random(n) < np.where(side == 1, hit, slip)).astype(float)
            for side, hit, slip in zip(real, (0.9, 0.94), (0.2, 0.26))
        ]
        d, f = real[1] - real[0], said[1] - said[0]
        found = prediction_powered(f[labels:], d[:labels], f[:labels])
        # Whoever knew the best weight and both spreads could do no better with these labels and judgements.
        weight = KNOWN_WEIGHT / (1 + labels / (n - labels))
        point = weight * f[labels:].mean() + (d[:labels] - weight * f[:labels]).mean()
        error = math.sqrt(
            np.var(d[:labels] - weight * f[:labels]) / labels + weight**2 * np.var(f[labels:]) / (n - labels)
        )
        known = np.array([point / error])
        return {"score": Pairs(said[0], said[1], bounds=UNIT, difference=found), KNOWN: Pairs([0.0], known)}

    return draw


KNOWN = "what somebody who knew the spreads would see"
KNOWN_WEIGHT = 0.42
"""Covariance of true and judged differences over the variance of judged ones, from a million items."""

# fmt: off
WORLDS: tuple[World, ...] = (
    World(
        "right or wrong, 100 items", Policy("score"), right_or_wrong(100, 0.12), "McNemar",
        right_or_wrong_chances(100, 0.12),
    ),
    World(
        "right or wrong, 300 items", Policy("score"), right_or_wrong(300, 0.06), "McNemar",
        right_or_wrong_chances(300, 0.06),
    ),
    World(
        "right or wrong, 1,000 items", Policy("score"), right_or_wrong(1000, 0.04), "McNemar",
        right_or_wrong_chances(1000, 0.04),
    ),
    World("graded, 60 items", Policy("score"), graded(60, 0.25)),
    World("graded, 300 items", Policy("score"), graded(300, 0.12)),
    World("marks from 1 to 5, 200 items", Policy("score"), graded(200, 0.15, steps=4)),
    World("graded, 50 sources of 1 to 40", Policy("score"), clustered(50, 0.35)),
    World("right or wrong, 50 sources", Policy("score"), clustered(50, 0.4, right=True)),
    World(
        "mean latency, 10 % slower allowed",
        Policy("latency_ms", Rule("non-inferiority", 0.1, "lower", relative=True)),
        slow(300, 0.1, -0.02),
    ),
    World(
        "rare losses, 2 % allowed, 300 items", Policy("score", non_inferiority(0.02)), rare(300, 0.02), "McNemar",
        rare_chances(300, 0.02),
    ),
    World(
        "rare losses, 10 % allowed, 50 items", Policy("score", non_inferiority(0.1)), rare(50, 0.1), "McNemar",
        rare_chances(50, 0.1),
    ),
    World(
        "sources that break, 10 % allowed",
        Policy("score", non_inferiority(0.1)),
        rare_in_clusters(60, 8, 0.1),
    ),
    World("a judge that favours it, 300 labels", Policy("score"), judged(3000, 300, 0.1), "known"),
    World("equivalent within 0.1", Policy("score", equivalence(0.1)), alike(400, 0.1)),
    World(
        "better, as safe, not slower",
        Policy(
            "score",
            superiority(),
            {"safe": non_inferiority(0.1), "latency_ms": Rule("non-inferiority", 0.15, "lower", relative=True)},
        ),
        several(400),
    ),
)
# fmt: on


def stream(rng: np.random.Generator, n: int, gain: float) -> NDArray[np.float64]:
    """Differences of two systems, item by item as they come in: right or wrong, and they mostly agree."""
    shared = rng.normal(size=n)
    old, new = (math.sqrt(0.8) * shared + math.sqrt(0.2) * rng.normal(size=n) for _ in range(2))
    edge = normal_quantile(0.7)
    found: NDArray[np.float64] = (new < normal_quantile(0.7 + gain)).astype(float) - (old < edge)
    return found
