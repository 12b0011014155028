"""How often the gate promotes what it should not, and how often it finds what deserves promotion; beside other rules.

Worlds of `_gate_data` are drawn again and again, each with a candidate at the edge of what the policy allows (promoting
it is wrong) and one that deserves promotion. Decided by windlass, by the test that is best known for such values, and
by rules as other tools have them:

    unpaired z      two scores as if each system had seen other items: lm-evaluation-harness' script for two results
    point           GO when the mean is within the tolerance, from 10 pairs on: NeMo Evaluator's gate
    z at each look  an interval for a fixed number of items, looked at twenty times while they come in
    z at the end    the same, looked at once: what it would find if nobody peeked, and nobody stopped early

The best known test is given the critical value with which it errs at most at the stated rate in that very world, found
by simulation: nobody knows it outside, so its power is an upper mark. `ratio` is windlass' power over that one's, over
all worlds together.

    python -m bench.gate            some minutes on one core
    python -m bench.gate --small
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from bench._gate_data import KNOWN, WORLDS, World, stream
from numpy.typing import NDArray

from windlass.core.tables import table
from windlass.evaluate.deciding import Pairs, decide
from windlass.evaluate.gate import Rule, superiority
from windlass.evaluate.gate import decide as decide_difference
from windlass.evaluate.online import Tally, look
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.distributions import normal_quantile
from windlass.evaluate.statistics.intervals import mean_error
from windlass.evaluate.statistics.sequences import mean_sequence, mixture_half_width, mixture_variance
from windlass.evaluate.statistics.shares import share_interval

RATE = 0.025
LOOKS = 20


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    wrong: float
    """Share of the draws in which windlass promoted the candidate at the edge."""
    wrong_low: float
    """What that share is at least, as far as so many draws tell (99 %)."""
    power: float
    best_power: float
    peers: Mapping[str, tuple[float, float]]
    """Rule -> (wrong promotions, right ones)."""

    @property
    def kept(self) -> bool:
        return self.wrong_low <= RATE


def fixed(world: World, draws: int, seed: int) -> Row:
    """One world whose items are all there before anybody looks."""
    ours: dict[bool, list[bool]] = {False: [], True: []}
    best: dict[bool, list[float]] = {False: [], True: []}
    peers: dict[str, dict[bool, list[bool]]] = {name: {False: [], True: []} for name in ("unpaired z", "point")}
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        for deserves in (False, True):
            pairs = world.draw(rng, deserves)
            ours[deserves].append(decide(world.policy, pairs).decision == "GO")
            best[deserves].append(evidence(world, pairs))
            peers["unpaired z"][deserves].append(unpaired(world, pairs))
            peers["point"][deserves].append(point(world, pairs))
    return row(world.name, ours, np.array(best[False]), np.array(best[True]), peers)


def row(
    name: str,
    ours: Mapping[bool, list[bool]],
    best_wrong: NDArray[np.float64],
    best_right: NDArray[np.float64],
    peers: Mapping[str, Mapping[bool, list[bool]]],
) -> Row:
    critical = honest(best_wrong)
    wrong = share_interval(np.array(ours[False], float), level=0.99)
    return Row(
        name,
        wrong.estimate,
        wrong.low,
        float(np.mean(ours[True])),
        float(np.mean(best_right > critical)),
        {rule: (float(np.mean(found[False])), float(np.mean(found[True]))) for rule, found in peers.items()},
    )


def honest(evidence_at_edge: NDArray[np.float64]) -> float:
    """The critical value of a test, raised where it would otherwise promote at the edge more often than it says."""
    ordered = np.sort(evidence_at_edge)
    allowed = math.floor(RATE * ordered.size)
    return max(normal_quantile(1 - RATE), float(ordered[-allowed - 1]))


def claims(world: World) -> Mapping[str, Rule]:
    return {world.policy.primary: world.policy.rule, **world.policy.guards}


def contrast(pairs: Pairs, rule: Rule) -> list[tuple[NDArray[np.float64], float]]:
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
                found.append(score(gain, rule.margin))
            else:
                seen = mean_error(gain, pairs[metric].clusters)
                found.append(seen.mean / seen.error if seen.error > 0 else math.inf * np.sign(seen.mean))
    return float(min(found))


def score(gain: NDArray[np.float64], margin: float) -> float:
    """McNemar's z; with a margin the score statistic, whose variance is that at the edge (Tango 1998; here with
    losses only, where it is binomial)."""
    change = gain - margin
    wins, losses, n = np.sum(change > 0.5), np.sum(change < -0.5), change.size
    if margin == 0.0:
        return float((wins - losses) / math.sqrt(wins + losses)) if wins + losses else 0.0
    return float((wins - losses + n * margin) / math.sqrt(n * margin * (1 - margin)))


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


def peeking(draws: int, seed: int, n: int = 2000, gain: float = 0.03) -> Row:
    """The same items for both as they come in, looked at twenty times; stopped at the first GO."""
    rng, rule = np.random.default_rng(seed), superiority()
    ours: dict[bool, list[bool]] = {False: [], True: []}
    fixed_z: dict[bool, list[list[bool]]] = {False: [], True: []}
    best: dict[bool, list[float]] = {False: [], True: []}
    at = np.linspace(n // LOOKS, n, LOOKS).astype(int)
    for deserves in (False, True):
        spread = stream(rng, 400_000, gain if deserves else 0.0).std()
        tau2 = mixture_variance(spread / math.sqrt(n / 2), 2 * RATE)
        for _ in range(draws):
            x = stream(rng, n, gain if deserves else 0.0)
            verdicts, exceeded, largest = [], [], -math.inf
            for k in at.tolist():
                interval = mean_sequence(x[:k], level=rule.level, planned=n)
                verdicts.append(decide_difference(interval, rule=rule).decision == "GO")
                error = x[:k].std(ddof=1) / math.sqrt(k)
                exceeded.append(error > 0 and x[:k].mean() / error > normal_quantile(1 - RATE))
                true = spread / math.sqrt(k)
                largest = max(largest, float(x[:k].mean()) / mixture_half_width(true, tau2, 2 * RATE))
            ours[deserves].append(any(verdicts))
            fixed_z[deserves].append(exceeded)
            best[deserves].append(largest * normal_quantile(1 - RATE))
    return row(
        "right or wrong, looked at 20 times", ours, np.array(best[False]), np.array(best[True]),
        {"z at each look": every(fixed_z, any), "z at the end": every(fixed_z, lambda seen: seen[-1])},
    )  # fmt: skip


def canary(draws: int, seed: int, n: int = 4000, gain: float = 0.07) -> Row:
    """Two arms of live traffic with a tenth in the canary, looked at twenty times."""
    rng, policy, shares = np.random.default_rng(seed), Policy("score", superiority()), (0.9, 0.1)
    ours: dict[bool, list[bool]] = {False: [], True: []}
    fixed_z: dict[bool, list[list[bool]]] = {False: [], True: []}
    best: dict[bool, list[float]] = {False: [], True: []}
    at = np.linspace(n // LOOKS, n, LOOKS).astype(int)
    for deserves in (False, True):
        edge, true = 0.6, 0.6 + (gain if deserves else 0.0)
        for _ in range(draws):
            to_new = rng.random(n) < shares[1]
            x = (rng.random(n) < np.where(to_new, true, edge)).astype(float)
            arms = [Tally(), Tally()]
            verdicts, exceeded, largest, start = [], [], -math.inf, 0
            for k in at.tolist():
                for side in (0, 1):
                    arms[side] += Tally.of(x[start:k][to_new[start:k] == bool(side)])
                start = k
                old, new = arms
                verdict = look(policy, {"score": old}, {"score": new}, planned=n, shares=shares)
                verdicts.append(verdict.decision == "GO")
                if min(old.n, new.n) > 1:
                    error = math.sqrt(old.variance / old.n + new.variance / new.n)
                    exceeded.append(error > 0 and (new.mean - old.mean) / error > normal_quantile(1 - RATE))
                    known = math.sqrt(edge * (1 - edge) / old.n + true * (1 - true) / new.n)
                    tau2 = mixture_variance(known * math.sqrt(k / (n / 2)), 2 * RATE)
                    largest = max(largest, (new.mean - old.mean) / mixture_half_width(known, tau2, 2 * RATE))
            ours[deserves].append(any(verdicts))
            fixed_z[deserves].append(exceeded)
            best[deserves].append(largest * normal_quantile(1 - RATE))
    return row(
        "canary with a tenth, looked at 20 times", ours, np.array(best[False]), np.array(best[True]),
        {"z at each look": every(fixed_z, any), "z at the end": every(fixed_z, lambda seen: seen[-1])},
    )  # fmt: skip


def every(looks: Mapping[bool, list[list[bool]]], rule: Callable[[list[bool]], bool]) -> Mapping[bool, list[bool]]:
    return {deserves: [bool(rule(seen)) for seen in found] for deserves, found in looks.items()}


def measured(draws: int, seed: int = 0) -> list[Row]:
    rows = [fixed(world, draws, seed + number) for number, world in enumerate(WORLDS)]
    return [*rows, peeking(max(100, draws // 4), seed + 100), canary(max(100, draws // 4), seed + 101)]


def shown(rows: list[Row]) -> str:
    peers = ("unpaired z", "point", "z at each look", "z at the end")
    header = ["world", "wrong", "right", "best test's right", *(f"{name}: wrong, right" for name in peers)]
    cells = []
    for one in rows:
        others = [f"{one.peers[name][0]:.3f}, {one.peers[name][1]:.2f}" if name in one.peers else "" for name in peers]
        mark = "" if one.kept else " !"
        cells.append([one.name, f"{one.wrong:.3f}{mark}", f"{one.power:.2f}", f"{one.best_power:.2f}", *others])
    return table(header, cells, right=range(1, len(header)))


def summary(rows: list[Row], draws: int) -> dict[str, object]:
    worst = max(rows, key=lambda one: one.wrong)
    return {
        "bench": "gate",
        "ratio": round(sum(one.power for one in rows) / sum(one.best_power for one in rows), 3),
        "against": "the best known test of each world, at a critical value that keeps the stated rate",
        "stated_rate": RATE,
        "false_promotion_max": round(worst.wrong, 4),
        "false_promotion_max_in": worst.name,
        "all_keep_the_rate": all(one.kept for one in rows),
        "power_gap_max": round(max(one.best_power - one.power for one in rows), 3),
        "false_promotion_max_of": {
            name: round(max(one.peers[name][0] for one in rows if name in one.peers), 3)
            for name in ("unpaired z", "point", "z at each look", "z at the end")
        },
        "worlds": len(rows),
        "draws": draws,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few draws: that it runs, not what it shows")
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draws = 100 if options.small else options.draws
    rows = measured(draws, options.seed)
    print(shown(rows))
    print(json.dumps(summary(rows, draws)))


if __name__ == "__main__":
    main()
