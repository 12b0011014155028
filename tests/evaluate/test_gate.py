"""The gate decides on the interval: properties, wording, several metrics, and its error rate by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.gate import (
    Check,
    Limit,
    Rule,
    Verdict,
    decide,
    decide_all,
    decide_limit,
    equivalence,
    non_inferiority,
    superiority,
)
from windlass.evaluate.statistics.intervals import Interval, mean_interval
from windlass.evaluate.statistics.paired import paired_difference

finite = st.floats(-1, 1, allow_nan=False)
POINTS = st.tuples(finite, finite, finite).map(sorted).filter(lambda points: points[0] < points[2])
"""Of items that differ: what none that differs shows is a test of its own."""
rules = st.sampled_from([superiority(), superiority(better="lower"), non_inferiority(0.05)])


def interval(low: float, estimate: float, high: float, n: int = 500, clusters: int = 60) -> Interval:
    return Interval(estimate, low, high, 0.95, n, clusters, "t")


@settings(max_examples=300, deadline=None)
@given(points=POINTS, n=st.integers(1, 3000), clusters=st.integers(1, 100))
def test_never_go_unless_the_whole_interval_clears_the_bar(points: list[float], n: int, clusters: int) -> None:
    found = interval(*points, n=n, clusters=min(n, clusters))
    enough = n >= 50 and min(n, clusters) >= 10
    assert (decide(found, rule=superiority()).decision == "GO") == (enough and found.low > 0)
    assert (decide(found, rule=non_inferiority(0.1)).decision == "GO") == (enough and found.low > -0.1)
    assert (decide(found, rule=superiority(better="lower")).decision == "GO") == (enough and found.high < 0)


@settings(max_examples=300, deadline=None)
@given(points=POINTS, up=st.floats(0, 1), rule=rules)
def test_a_better_interval_never_gets_a_worse_verdict(points: list[float], up: float, rule: Rule) -> None:
    order = ["NO-GO", "INCONCLUSIVE", "GO"]
    shift = up if rule.better == "higher" else -up
    before = decide(interval(*points), rule=rule).decision
    after = decide(interval(*(p + shift for p in points)), rule=rule).decision
    assert order.index(after) >= order.index(before)


@settings(max_examples=300, deadline=None)
@given(points=POINTS, rule=rules)
def test_only_the_inconclusive_asks_for_items_and_always_for_some(points: list[float], rule: Rule) -> None:
    verdict = decide(interval(*points), rule=rule)
    if verdict.decision == "INCONCLUSIVE":
        assert verdict.n_needed is None or verdict.n_needed >= 1
    else:
        assert verdict.n_needed is None


def test_the_nearer_the_bar_the_more_items() -> None:
    needs = [
        decide(interval(e - 0.05, e, e + 0.05), rule=superiority()).n_needed for e in (0.04, 0.03, 0.02, 0.01, 0.005)
    ]
    assert needs == sorted(needs, key=lambda n: n or 0)
    assert all(needs)
    at_the_bar = decide(interval(-0.05, 0.0, 0.05), rule=superiority())
    assert at_the_bar.n_needed is None
    assert "no practical number" in at_the_bar.reason


def test_reasons_are_sentences_with_their_numbers() -> None:
    go = decide(interval(0.01, 0.03, 0.05, n=1200), rule=superiority(), metric="nDCG@10")
    assert go == Verdict(
        "GO",
        "nDCG@10 changes by +0.0300, 95 % interval +0.0100 to +0.0500, over 1,200 items in 60 clusters, "
        "so the candidate is better.",
        interval=interval(0.01, 0.03, 0.05, n=1200),
    )
    assert decide(interval(-0.4, -0.3, -0.2), rule=non_inferiority(0.1)).reason.endswith(
        "so the candidate is not at most 0.1 worse."
    )
    assert "score the same on every item" in decide(interval(0, 0, 0), rule=superiority()).reason


def test_few_items_or_clusters_decide_nothing_however_good_they_look() -> None:
    few = decide(interval(0.4, 0.5, 0.6, n=20, clusters=20), rule=superiority())
    assert (few.decision, few.n_needed) == ("INCONCLUSIVE", 30)
    lumped = decide(interval(0.4, 0.5, 0.6, n=600, clusters=3), rule=superiority())
    assert (lumped.decision, lumped.n_needed) == ("INCONCLUSIVE", 1400)


def test_an_interval_of_too_low_a_level_is_refused() -> None:
    with pytest.raises(InputError, match=r"0\.005 needs an interval of level 0\.99"):
        decide(interval(0.1, 0.2, 0.3), rule=superiority(error_rate=0.005))


def test_no_interval_no_verdict() -> None:
    with pytest.raises(InputError, match="not in order"):
        decide(interval(0.0, math.nan, 1.0), rule=superiority())
    with pytest.raises(InputError, match="let everything through"):
        decide_all([])
    unbounded = mean_interval([0.5] * 100, ["one file"] * 100)
    assert decide(unbounded, rule=superiority()).decision == "INCONCLUSIVE"


def test_rules_are_checked_where_they_are_made() -> None:
    for make in (
        lambda: non_inferiority(0.0),
        lambda: non_inferiority(math.inf),
        lambda: superiority(error_rate=0.5),
        lambda: Rule("superiority", margin=0.1),
        lambda: equivalence(0.0),
        lambda: Limit("cost_usd"),
        lambda: Limit("cost_usd", at_most=1, at_least=0),
        lambda: Limit("cost_usd", at_most=math.nan),
        lambda: Limit("cost_usd", at_most=1, error_rate=0.7),
    ):
        with pytest.raises(InputError):
            make()


def test_equivalence_needs_the_whole_interval_between_the_margins() -> None:
    rule = equivalence(0.05)
    assert decide(interval(-0.04, 0.0, 0.04), rule=rule).decision == "GO"
    assert decide(interval(0.06, 0.08, 0.1), rule=rule).decision == "NO-GO"
    assert decide(interval(-0.1, -0.08, -0.06), rule=rule).decision == "NO-GO"
    for low, estimate, high in ((-0.01, 0.03, 0.07), (-0.07, -0.03, 0.01), (-0.2, 0.0, 0.2)):
        verdict = decide(interval(low, estimate, high), rule=rule)
        assert verdict.decision == "INCONCLUSIVE" and verdict.n_needed
    assert decide(interval(-0.06, 0.0, 0.06), rule=rule).reason.split(": ")[1].startswith("it cannot be told yet")


def test_that_no_item_differs_shows_no_harm_only_when_enough_were_looked_at() -> None:
    """Of 50 items none differs with a chance of 0.22 where 3 % of all do."""
    nothing = interval(0.0, 0.0, 0.0, n=50, clusters=50)
    rule = non_inferiority(0.02)
    few = decide(nothing, rule=rule)
    assert few.decision == "INCONCLUSIVE" and "the next may differ" in few.reason
    assert few.n_needed is not None
    n = 50 + few.n_needed
    assert decide(interval(0.0, 0.0, 0.0, n=n, clusters=n), rule=rule).decision == "GO"
    assert decide(interval(0.0, 0.0, 0.0, n=n - 2, clusters=n - 2), rule=rule).decision == "INCONCLUSIVE"
    assert decide(nothing, rule=rule, span=0.1).decision == "GO", "they can differ by a tenth at most"
    assert decide(nothing, rule=superiority()).decision == "NO-GO"


def test_relative_differences_are_told_in_percent() -> None:
    rule = Rule("non-inferiority", 0.1, "lower", statistic="p95", relative=True)
    verdict = decide(interval(0.02, 0.05, 0.08), rule=rule, metric="latency_ms")
    assert verdict.reason == (
        "p95 of latency_ms changes by +5.0 %, 95 % interval +2.0 to +8.0 %, over 500 items in 60 clusters, "
        "so the candidate is at most 10 % worse."
    )


def test_limits_are_of_the_candidate_alone() -> None:
    ceiling, floor = Limit("cost_usd", at_most=0.002), Limit("safe", at_least=0.99)
    assert decide_limit(interval(0.001, 0.0015, 0.0019), limit=ceiling).decision == "GO"
    assert decide_limit(interval(0.0021, 0.0025, 0.003), limit=ceiling).decision == "NO-GO"
    unclear = decide_limit(interval(0.0015, 0.0018, 0.0021), limit=ceiling)
    assert unclear.decision == "INCONCLUSIVE" and unclear.n_needed
    assert decide_limit(interval(0.991, 0.995, 0.999), limit=floor).decision == "GO"
    assert decide_limit(interval(0.97, 0.98, 0.989), limit=floor).reason.endswith("so it is not at least 0.99.")
    few = decide_limit(interval(0.991, 0.995, 0.999, n=20, clusters=20), limit=floor)
    assert (few.decision, few.n_needed) == ("INCONCLUSIVE", 30)


def test_verdicts_written_before_they_kept_their_interval_are_read() -> None:
    row = {"decision": "GO", "reason": "r", "n_needed": None, "checks": []}
    assert Verdict.from_json(row) == Verdict("GO", "r")


GOOD, EVEN, BAD = interval(0.01, 0.02, 0.03), interval(-0.02, 0.0, 0.02), interval(-0.2, -0.15, -0.1)


@pytest.mark.parametrize(
    ("primary", "guard", "decision"),
    [
        (GOOD, EVEN, "GO"),
        (GOOD, BAD, "NO-GO"),
        (GOOD, interval(-0.1, 0.0, 0.1), "INCONCLUSIVE"),
        (EVEN, EVEN, "INCONCLUSIVE"),
        (EVEN, BAD, "NO-GO"),
        (BAD, GOOD, "NO-GO"),
    ],
)
def test_all_checks_must_pass(primary: Interval, guard: Interval, decision: str) -> None:
    verdict = decide_all(
        [Check("nDCG@10", primary, superiority()), Check("right decisions", guard, non_inferiority(0.05))]
    )
    assert verdict.decision == decision
    assert [metric for metric, _ in verdict.checks] == ["nDCG@10", "right decisions"]
    assert Verdict.from_json(verdict.to_json()) == verdict


def clustered_pairs(rng: np.random.Generator, effect: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """nDCG-like scores in [0, 1] of two systems; questions of one module succeed and fail together."""
    sizes = rng.geometric(0.12, size=50)
    clusters = np.repeat(np.arange(50), sizes)
    hardness = rng.normal(size=clusters.size) + rng.normal(size=50)[clusters]
    lean = 0.6 * rng.normal(size=50)[clusters]
    noisy = (hardness + side + rng.normal(0, 0.5, clusters.size) for side in (-lean, lean + effect))
    scores = [1 / (1 + np.exp(-logit)) for logit in noisy]
    return np.round(scores[0], 1), np.round(scores[1], 1), clusters


def promotions(repetitions: int, effect: float = 0.0) -> float:
    rng = np.random.default_rng(11)
    verdicts = []
    for _ in range(repetitions):
        incumbent, candidate, clusters = clustered_pairs(rng, effect)
        difference = paired_difference(incumbent, candidate, clusters).difference
        verdicts.append(decide(difference, rule=superiority()).decision)
    return float(np.mean([v == "GO" for v in verdicts]))


def test_equal_systems_are_promoted_at_most_at_the_stated_rate() -> None:
    rate = promotions(1500)
    assert rate <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 1500)


def test_a_better_system_is_promoted() -> None:
    assert promotions(200, effect=1.0) > 0.85


def test_where_nothing_is_known_no_figure_is_made_up() -> None:
    nothing = Interval(0.0, -math.inf, math.inf, 0.95, 0, 0, "sequence")
    verdict = decide(nothing, rule=non_inferiority(0.02), metric="failed")
    assert verdict.decision == "INCONCLUSIVE"
    assert (
        verdict.reason.startswith("failed is known of no item yet: too little to decide on")
        and "inf" not in verdict.reason
    )
