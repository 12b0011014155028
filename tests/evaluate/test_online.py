"""Two arms of live traffic: tallies add up, looks decide, and the stated rates hold however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.gate import Limit, Rule, non_inferiority, superiority
from windlass.evaluate.online import Tally, look
from windlass.evaluate.policy import Policy


@given(values=st.lists(st.floats(-1e3, 1e3), max_size=40), cut=st.integers(0, 40))
def test_tallies_add_up(values: list[float], cut: int) -> None:
    whole, parts = Tally.of(values), Tally.of(values[:cut]) + Tally.of(values[cut:])
    assert parts.n == whole.n == len(values)
    assert parts.mean == pytest.approx(whole.mean, abs=1e-9)
    assert parts.squares == pytest.approx(whole.squares, rel=1e-9, abs=1e-6)
    if len(values) > 1 and (min(values) < -1e-3 or max(values) > 1.001):
        assert whole.variance == pytest.approx(np.var(values, ddof=1), rel=1e-9, abs=1e-9)
    assert Tally(**whole.to_json()) == whole


def test_that_nothing_failed_yet_does_not_mean_that_nothing_can() -> None:
    none, few = Tally.of(np.zeros(40)), Tally.of(np.zeros(4000))
    assert none.variance == pytest.approx(41 / 42**2)
    policy = Policy("failed", non_inferiority(0.01, better="lower"))
    early = look(policy, {"failed": none}, {"failed": none}, planned=4000)
    assert early.decision == "INCONCLUSIVE"
    assert look(policy, {"failed": few}, {"failed": few}, planned=4000).decision == "GO"
    good = Tally.of(np.ones(40))
    first = look(Policy("good"), {"good": good}, {"good": good}, planned=4000)
    assert first.decision == "INCONCLUSIVE", "not refuted by a first look at which all was well in both"


def test_a_tally_of_nothing_and_of_nan() -> None:
    assert Tally.of([]) == Tally() == Tally() + Tally()
    assert Tally().variance == 0.0
    with pytest.raises(InputError, match="not finite"):
        Tally.of([1.0, math.nan])


def arms(
    rng: np.random.Generator, n: int, gain: float, slower: float = 0.0
) -> tuple[dict[str, Tally], dict[str, Tally]]:
    first, second = (
        {"good": Tally.of(rng.random(n) < 0.6 + g), "ms": Tally.of(100 * (1 + s) * rng.lognormal(0, 0.5, n))}
        for g, s in ((0.0, 0.0), (gain, slower))
    )
    return first, second


POLICY = Policy("good", superiority(), {"ms": Rule("non-inferiority", 0.1, "lower", relative=True)})


def test_a_look_promotes_what_is_better_stops_what_harms_and_waits_for_the_rest() -> None:
    rng = np.random.default_rng(1)
    better = look(POLICY, *arms(rng, 5000, 0.1), planned=10_000)
    assert better.decision == "GO", better.reason
    harm = look(POLICY, *arms(rng, 5000, 0.1, slower=0.3), planned=10_000)
    assert harm.decision == "NO-GO" and "ms changes by" in harm.reason and "at most 10 % worse" in harm.reason
    early = look(POLICY, *arms(rng, 60, 0.1), planned=10_000)
    assert early.decision == "INCONCLUSIVE"
    none = {name: Tally() for name in ("good", "ms")}
    with pytest.raises(InputError, match="nothing is a share of it"):
        look(POLICY, none, none, planned=100)
    assert look(Policy("good"), none, none, planned=100).decision == "INCONCLUSIVE"


def test_limits_are_of_the_canary_alone() -> None:
    rng = np.random.default_rng(2)
    before, after = arms(rng, 5000, 0.1)
    for at_most, decision in ((200.0, "GO"), (50.0, "NO-GO")):
        verdict = look(Policy("good", limits=(Limit("ms", at_most=at_most),)), before, after, planned=10_000)
        assert verdict.decision == decision


def test_arms_that_do_not_get_their_shares_are_not_compared() -> None:
    rng = np.random.default_rng(3)
    before, after = arms(rng, 5000, 0.1)
    lost = look(POLICY, before, after, planned=10_000, units=(5600, 5000))
    assert lost.decision == "INCONCLUSIVE" and "sample-ratio mismatch" in lost.reason
    assert look(POLICY, before, after, planned=10_000, units=(9000, 1000), shares=(0.9, 0.1)).decision == "GO"


def test_what_tallies_do_not_hold_is_refused() -> None:
    rng = np.random.default_rng(4)
    before, after = arms(rng, 100, 0.0)
    for policy in (
        Policy("ms", Rule("superiority", better="lower", statistic="p95")),
        Policy("good", limits=(Limit("ms", at_most=1, statistic="p95"),)),
    ):
        with pytest.raises(InputError, match=r"p95 of ms.*kept as means"):
            look(policy, before, after, planned=1000)
    with pytest.raises(InputError, match="metric 'cost'"):
        look(Policy("good", guards={"cost": non_inferiority(1, better="lower")}), before, after, planned=1000)


def test_twenty_looks_promote_what_is_no_better_at_most_at_the_stated_rate() -> None:
    rng = np.random.default_rng(5)
    wrong = fixed = 0
    repetitions, policy = 300, Policy("good")
    for _ in range(repetitions):
        sides = rng.random((2, 2000)) < 0.6
        went = crossed = False
        for k in range(100, 2001, 100):
            a, b = (Tally.of(side[:k]) for side in sides)
            went |= look(policy, {"good": a}, {"good": b}, planned=4000).decision == "GO"
            crossed |= (b.mean - a.mean) > 1.96 * math.sqrt((a.variance + b.variance) / k)
        wrong += went
        fixed += crossed
    assert wrong / repetitions <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / repetitions)
    assert fixed / repetitions > 0.07
