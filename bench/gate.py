"""How often the gate promotes what it should not, and how often it finds what deserves promotion; beside other rules.

Worlds of `_gate_data` are drawn again and again, each with a candidate at the edge of what the policy allows (promoting
it is wrong) and one that deserves promotion. Decided by windlass, by the test that is best known for such values, and
by rules as other tools have them:

    unpaired z      two scores as if each system had seen other items: lm-evaluation-harness' script for two results
    point           GO when the mean is within the tolerance, from 10 pairs on: NeMo Evaluator's gate
    z at each look  an interval for a fixed number of items, looked at twenty times while they come in
    z at the end    the same, looked at once: what it would find if nobody peeked, and nobody stopped early

The best known test is given the critical value with which it errs at most at the stated rate in that very world, found
from the draws: nobody knows it outside, so its power is an upper mark. `ratio` is windlass' power over that one's, over
all worlds together.

Of right or wrong on independent items the shares are exact sums over all samples (`_gate_exact`), and the draws check
them. Elsewhere draws tell wrong promotions to 0.0008 (one standard error), so that of some ten worlds in which the rate
is just the stated one the largest is expected 0.0012 above it.

    python -m bench.gate            some minutes on two cores
    python -m bench.gate --small
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from bench._gate_data import KNOWN, WORLDS, World, stream
from bench._gate_exact import critical, exceeded, promoted
from numpy.typing import ArrayLike, NDArray

from windlass.core.tables import table
from windlass.evaluate.deciding import Pairs, decide
from windlass.evaluate.gate import Rule, superiority
from windlass.evaluate.gate import decide as decide_difference
from windlass.evaluate.online import Tally, look
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.distributions import normal_quantile
from windlass.evaluate.statistics.intervals import mean_error
from windlass.evaluate.statistics.sequences import mean_sequence, mixture_half_width, mixture_variance

RATE = 0.025
LOOKS = 20
CHUNK = 500
EXACT_TOLERANCE = 1e-4

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """Of each draw of one world with one candidate."""

    ours: Bools
    """Whether windlass promoted it."""
    best: Floats
    """The statistic of the best known test."""
    peers: Mapping[str, Bools]
    """Rule -> whether it promoted it."""

    @classmethod
    def joined(cls, parts: Sequence[Seen]) -> Seen:
        return cls(
            np.concatenate([one.ours for one in parts]),
            np.concatenate([one.best for one in parts]),
            {name: np.concatenate([one.peers[name] for one in parts]) for name in parts[0].peers},
        )


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    wrong: float
    """Share of the draws in which windlass promoted the candidate at the edge."""
    wrong_error: float
    """Its standard error, as far as so many draws tell."""
    exact: float | None
    """The same share of all samples there are, where it can be summed."""
    power: float
    best_power: float
    peers: Mapping[str, tuple[float, float]]
    """Rule -> (wrong promotions, right ones)."""

    @property
    def rate(self) -> float:
        return self.wrong if self.exact is None else self.exact

    @property
    def rate_error(self) -> float:
        return self.wrong_error if self.exact is None else 0.0

    @property
    def kept(self) -> bool:
        """Exactly, or as far as so many draws tell (99 %, one-sided)."""
        if self.exact is not None:
            return self.exact <= RATE + EXACT_TOLERANCE
        return self.wrong - normal_quantile(0.99) * self.wrong_error <= RATE


def fixed(world: World, deserves: bool, draws: int, rng: np.random.Generator) -> Seen:
    """One world whose items are all there before anybody looks."""
    ours, best, apart, means = [], [], [], []
    for _ in range(draws):
        pairs = world.draw(rng, deserves)
        ours.append(decide(world.policy, pairs).decision == "GO")
        best.append(evidence(world, pairs))
        apart.append(unpaired(world, pairs))
        means.append(point(world, pairs))
    return Seen(np.array(ours), np.array(best), {"unpaired z": np.array(apart), "point": np.array(means)})


def row(name: str, edge: Seen, deserving: Seen, world: World | None = None) -> Row:
    wrong = float(np.mean(edge.ours))
    likely = (np.sum(edge.ours) + 1) / (edge.ours.size + 2)  # none of few draws is not never (Agresti & Coull)
    peers = {rule: (float(np.mean(edge.peers[rule])), float(np.mean(deserving.peers[rule]))) for rule in edge.peers}
    error = math.sqrt(likely * (1 - likely) / edge.ours.size)
    if world is None or world.exact is None:
        best = float(np.mean(deserving.best > honest(edge.best)))
        return Row(name, wrong, error, None, float(np.mean(deserving.ours)), best, peers)
    at_edge, right = world.exact(False), world.exact(True)
    bar = critical(at_edge, lambda won, lost: mcnemar(world, won, lost), RATE, normal_quantile(1 - RATE))
    return Row(
        name, wrong, error, promoted(at_edge, lambda won, lost: go(world, won, lost)),
        promoted(right, lambda won, lost: go(world, won, lost)),
        exceeded(right, lambda won, lost: mcnemar(world, won, lost), bar), peers,
    )  # fmt: skip


def go(world: World, won: int, lost: int) -> bool:
    """Whether windlass promotes the candidate after so many items won and lost."""
    assert world.exact is not None
    old, new = np.zeros(world.exact(False).n), np.zeros(world.exact(False).n)
    new[:won], old[won : won + lost] = 1.0, 1.0
    return decide(world.policy, {world.policy.primary: Pairs(old, new, bounds=(0.0, 1.0))}).decision == "GO"


def honest(evidence_at_edge: Floats) -> float:
    """The critical value of a test, raised where it would otherwise promote at the edge more often than it says."""
    ordered = np.sort(evidence_at_edge)
    allowed = math.floor(RATE * ordered.size)
    return max(normal_quantile(1 - RATE), float(ordered[-allowed - 1]))


def claims(world: World) -> Mapping[str, Rule]:
    return {world.policy.primary: world.policy.rule, **world.policy.guards}


def contrast(pairs: Pairs, rule: Rule) -> list[tuple[Floats, float]]:
    """Item by item what must be above 0 on average for the rule to hold, with the sign that makes more better."""
    sign = 1.0 if rule.better == "higher" else -1.0
    before, after = np.asarray(pairs.before), np.asarray(pairs.after)
    if rule.relative:
        return [(sign * (after - (1 - sign * rule.margin) * before), 1.0)]
    if rule.kind == "equivalence":
        return [(after - before + rule.margin, 1.0), (before - after + rule.margin, 1.0)]
    return [(sign * (after - before) + rule.margin, 1.0)]


def evidence(world: World, pairs: Mapping[str, Pairs]) -> float:
    """The statistic of the best known test: the least of its claims' (intersection-union)."""
    if world.best == "known":
        return float(np.asarray(pairs[KNOWN].after)[0])
    found = []
    for metric, rule in claims(world).items():
        for gain, _ in contrast(pairs[metric], rule):
            if world.best == "McNemar":
                change = gain - rule.margin
                found.append(float(mcnemar(world, np.sum(change > 0.5), np.sum(change < -0.5), gain.size)))
            else:
                seen = mean_error(gain, pairs[metric].clusters)
                found.append(seen.mean / seen.error if seen.error > 0 else math.inf * np.sign(seen.mean))
    return float(min(found))


def mcnemar(world: World, won: ArrayLike, lost: ArrayLike, n: int | None = None) -> Floats:
    """McNemar's z; with a margin the score statistic, whose variance is that at the edge (Tango 1998; here with
    losses only, where it is binomial)."""
    wins, losses, margin = np.asarray(won), np.asarray(lost), world.policy.rule.margin
    if margin == 0.0:
        return np.asarray((wins - losses) / np.sqrt(np.maximum(wins + losses, 1)))
    if n is None:
        assert world.exact is not None
        n = world.exact(False).n
    return np.asarray((wins - losses + n * margin) / math.sqrt(n * margin * (1 - margin)))


def unpaired(world: World, pairs: Mapping[str, Pairs]) -> bool:
    """Two scores with a standard error each, as if the systems had seen different items."""
    for metric, rule in claims(world).items():
        one = pairs[metric]
        a, b = np.asarray(one.before), np.asarray(one.after)
        if rule.relative:
            a = a * (1 + rule.margin if rule.better == "lower" else 1 - rule.margin)
        change = (b.mean() - a.mean()) * (1 if rule.better == "higher" else -1)
        margin = 0.0 if rule.relative else rule.margin
        half = normal_quantile(1 - RATE) * math.sqrt(a.var(ddof=1) / a.size + b.var(ddof=1) / b.size)
        if rule.kind == "equivalence" and not change + half < margin:
            return False
        if not change - half > -margin:
            return False
    return True


def point(world: World, pairs: Mapping[str, Pairs]) -> bool:
    """The mean's change against the tolerance, if there are 10 pairs."""
    for metric, rule in claims(world).items():
        one = pairs[metric]
        a, b = np.asarray(one.before), np.asarray(one.after)
        if a.size < 10:
            return False
        change = (b.mean() - a.mean()) * (1 if rule.better == "higher" else -1)
        tolerance = rule.margin * a.mean() if rule.relative else rule.margin
        inside = abs(change) < tolerance if rule.kind == "equivalence" else change > -tolerance
        if not inside:
            return False
    return True


def peeking(deserves: bool, draws: int, rng: np.random.Generator, n: int = 2000, gain: float = 0.03) -> Seen:
    """The same items for both as they come in, looked at twenty times; stopped at the first GO."""
    rule, true_gain = superiority(), gain if deserves else 0.0
    at = np.linspace(n // LOOKS, n, LOOKS).astype(int).tolist()
    spread = stream(np.random.default_rng(0), 400_000, true_gain).std()
    tau2 = mixture_variance(spread / math.sqrt(n / 2), 2 * RATE)
    ours, best, exceeded_at = [], [], []
    for _ in range(draws):
        x = stream(rng, n, true_gain)
        sums, squares = np.cumsum(x), np.cumsum(x * x)
        largest, exceeds, found = -math.inf, [], False
        for k in at:
            if not found:
                interval = mean_sequence(x[:k], level=rule.level, planned=n)
                found = decide_difference(interval, rule=rule).decision == "GO"
            mean = sums[k - 1] / k
            error = math.sqrt((squares[k - 1] / k - mean * mean) / (k - 1))
            exceeds.append(error > 0 and mean / error > normal_quantile(1 - RATE))
            largest = max(largest, mean / mixture_half_width(spread / math.sqrt(k), tau2, 2 * RATE))
        ours.append(found)
        best.append(largest * normal_quantile(1 - RATE))
        exceeded_at.append(exceeds)
    return _looked_at(ours, best, exceeded_at)


def canary(deserves: bool, draws: int, rng: np.random.Generator, n: int = 4000, gain: float = 0.07) -> Seen:
    """Two arms of live traffic with a tenth in the canary, looked at twenty times."""
    policy, shares = Policy("score", superiority()), (0.9, 0.1)
    at = np.linspace(n // LOOKS, n, LOOKS).astype(int).tolist()
    edge, true = 0.6, 0.6 + (gain if deserves else 0.0)
    ours, best, exceeded_at = [], [], []
    for _ in range(draws):
        to_new = rng.random(n) < shares[1]
        x = (rng.random(n) < np.where(to_new, true, edge)).astype(float)
        arms = [Tally(), Tally()]
        largest, exceeds, found, start = -math.inf, [], False, 0
        for k in at:
            for side in (0, 1):
                arms[side] += Tally.of(x[start:k][to_new[start:k] == bool(side)])
            start = k
            old, new = arms
            if not found:
                verdict = look(policy, {"score": old}, {"score": new}, planned=n, shares=shares)
                found = verdict.decision == "GO"
            if min(old.n, new.n) > 1:
                error = math.sqrt(old.variance / old.n + new.variance / new.n)
                exceeds.append(error > 0 and (new.mean - old.mean) / error > normal_quantile(1 - RATE))
                known = math.sqrt(edge * (1 - edge) / old.n + true * (1 - true) / new.n)
                tau2 = mixture_variance(known * math.sqrt(k / (n / 2)), 2 * RATE)
                largest = max(largest, (new.mean - old.mean) / mixture_half_width(known, tau2, 2 * RATE))
        ours.append(found)
        best.append(largest * normal_quantile(1 - RATE))
        exceeded_at.append(exceeds)
    return _looked_at(ours, best, exceeded_at)


def _looked_at(ours: list[bool], best: list[float], exceeded_at: list[list[bool]]) -> Seen:
    peers = {
        "z at each look": np.array([any(looks) for looks in exceeded_at]),
        "z at the end": np.array([looks[-1] for looks in exceeded_at]),
    }
    return Seen(np.array(ours), np.array(best), peers)


LOOKED_AT = {"right or wrong, looked at 20 times": peeking, "canary with a tenth, looked at 20 times": canary}


Task = tuple[int, bool, int, tuple[int, ...]]
"""Number of the world, whether the candidate deserves promotion, draws, seed."""


def chunk(task: Task) -> Seen:
    """So many draws of one world; the seed says which, whatever process draws them."""
    number, deserves, draws, seed = task
    rng = np.random.default_rng(seed)
    if number < len(WORLDS):
        return fixed(WORLDS[number], deserves, draws, rng)
    return list(LOOKED_AT.values())[number - len(WORLDS)](deserves, draws, rng)


def measured(at_edge: int, seed: int = 0, processes: int = 1, told: Callable[[Row], None] | None = None) -> list[Row]:
    """A row for each world; `told` hears of each as soon as it is done."""
    names = [*(world.name for world in WORLDS), *LOOKED_AT]
    worlds = [*WORLDS, *[None] * len(LOOKED_AT)]
    tasks: dict[tuple[int, bool], list[Task]] = {
        (number, deserves): [
            (number, deserves, min(CHUNK, draws - start), (seed, number, int(deserves), start))
            for start in range(0, draws, CHUNK)
        ]
        for number, world in enumerate(worlds)
        for deserves, draws in ((False, needed(world, at_edge)), (True, max(CHUNK // 5, at_edge // 4)))
    }
    rows = []
    with ProcessPoolExecutor(processes) as pool:
        found = {which: [pool.submit(chunk, task) for task in some] for which, some in tasks.items()}
        for number, (name, world) in enumerate(zip(names, worlds)):
            edge, right = (Seen.joined([one.result() for one in found[number, side]]) for side in (False, True))
            rows.append(row(name, edge, right, world))
            if told:
                told(rows[-1])
    return rows


def needed(world: World | None, at_edge: int) -> int:
    """Fewer draws where a sum says it exactly, and where looks are paid for, so that promotions are rare."""
    return at_edge // 4 if world and world.exact else at_edge if world else at_edge // 2


def shown(rows: list[Row]) -> str:
    peers = ("unpaired z", "point", "z at each look", "z at the end")
    header = ["world", "wrong", "exactly", "right", "best test's right", *(f"{name}: wrong, right" for name in peers)]
    cells = []
    for one in rows:
        others = [f"{one.peers[name][0]:.3f}, {one.peers[name][1]:.2f}" if name in one.peers else "" for name in peers]
        mark = "" if one.kept else " !"
        exact = "" if one.exact is None else f"{one.exact:.4f}"
        ours = [f"{one.wrong:.4f} ± {one.wrong_error:.4f}{mark}", exact, f"{one.power:.3f}", f"{one.best_power:.3f}"]
        cells.append([one.name, *ours, *others])
    return table(header, cells, right=range(1, len(header)))


def summary(rows: list[Row], draws: int) -> dict[str, object]:
    worst, furthest = max(rows, key=lambda one: one.rate), max(rows, key=lambda one: one.best_power - one.power)
    return {
        "bench": "gate",
        "ratio": round(sum(one.power for one in rows) / sum(one.best_power for one in rows), 3),
        "against": "the best known test of each world, at a critical value that keeps the stated rate",
        "stated_rate": RATE,
        "false_promotion_max": round(worst.rate, 4),
        "false_promotion_max_error": round(worst.rate_error, 4),
        "false_promotion_max_in": worst.name,
        "false_promotion_max_exact": round(max((one.exact for one in rows if one.exact is not None), default=0.0), 5),
        "all_keep_the_rate": all(one.kept for one in rows),
        "power_gap_max": round(furthest.best_power - furthest.power, 3),
        "power_gap_max_in": furthest.name,
        "false_promotion_max_of": {
            name: round(max((one.peers[name][0] for one in rows if name in one.peers), default=0.0), 3)
            for name in ("unpaired z", "point", "z at each look", "z at the end")
        },
        "worlds": len(rows),
        "draws": draws,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few draws: that it runs, not what it shows")
    parser.add_argument("--draws", type=int, default=40_000, help="with the candidate at the edge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    options = parser.parse_args()
    draws = 100 if options.small else options.draws
    rows = measured(draws, options.seed, options.processes, lambda one: print(f"{one.name}: done", file=sys.stderr))
    print(shown(rows))
    print(json.dumps(summary(rows, draws)))


if __name__ == "__main__":
    main()
