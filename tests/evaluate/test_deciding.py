"""From values to a verdict by a policy: every rule gets its interval, and what cannot be decided says why."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.deciding import Pairs, candidate_interval, decide, difference_interval
from windlass.evaluate.gate import Limit, Rule, Verdict, equivalence, non_inferiority, superiority
from windlass.evaluate.policy import Policy, SliceRule
from windlass.evaluate.slices import slice_differences
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference

UNIT = (0.0, 1.0)


def scored(rng: np.random.Generator, n: int = 300, gain: float = 0.1) -> Pairs:
    old = rng.random(n)
    return Pairs(old, np.clip(old + rng.normal(gain, 0.1, n), 0, 1), bounds=UNIT)


RNG = np.random.default_rng(1)
TIMES = RNG.lognormal(0, 1, 300)


def test_every_check_of_a_policy_is_made_in_its_order() -> None:
    score = scored(RNG)
    languages = RNG.choice(["en", "de", "fr"], 300).tolist()
    policy = Policy(
        "f1",
        superiority(),
        {"latency_ms": Rule("non-inferiority", 0.2, "lower", relative=True), "words": equivalence(2.0)},
        (Limit("cost_usd", at_most=0.01), Limit("safe", at_least=0.9)),
        SliceRule(("language",)),
    )
    verdict = decide(
        policy,
        {
            "f1": Pairs(score.before, score.after, bounds=UNIT, slices={"language": languages}),
            "latency_ms": Pairs(TIMES, TIMES * RNG.lognormal(0, 0.05, 300)),
            "words": Pairs(RNG.normal(50, 3, 300), RNG.normal(50, 3, 300)),
            "cost_usd": Pairs(TIMES / 1000, TIMES / 1000),
            "safe": Pairs(np.ones(300), np.ones(300), bounds=UNIT),
        },
    )
    assert verdict.decision == "GO", verdict.reason
    names = [name for name, _ in verdict.checks]
    assert names == ["f1", "latency_ms", "words", "cost_usd, ceiling", "safe, floor", "f1 by language"]
    assert len(verdict.checks[-1][1].checks) == 3
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_any_check_that_fails_stops_it() -> None:
    score = scored(RNG)
    dear = Pairs(TIMES, TIMES)
    policy = Policy("f1", limits=(Limit("cost_usd", at_most=0.5),))
    verdict = decide(policy, {"f1": score, "cost_usd": dear})
    assert verdict.decision == "NO-GO" and "so it is not at most 0.5" in verdict.reason
    assert dict(verdict.checks)["f1"].decision == "GO"


def test_the_interval_of_a_judged_metric_takes_the_place_of_its_values() -> None:
    corrected = Interval(-0.01, -0.09, 0.07, 0.95, 300, 300, "prediction-powered")
    score = scored(RNG)
    judged = Pairs(score.before, score.after, bounds=UNIT, difference=corrected)
    assert decide(Policy("f1"), {"f1": score}).decision == "GO"
    verdict = decide(Policy("f1"), {"f1": judged})
    assert verdict.decision == "INCONCLUSIVE" and verdict.checks[0][1].interval == corrected
    own = Interval(0.95, 0.85, 0.99, 0.95, 300, 300, "Rogan-Gladen")
    limited = Pairs(np.ones(300), np.ones(300), bounds=UNIT, candidate=own)
    assert candidate_interval(limited, Limit("safe", at_least=0.9)) == own


def test_too_many_failures_decide_nothing_and_few_do_not_matter() -> None:
    score = scored(RNG)
    few = Pairs(score.before, score.after, bounds=UNIT, failed=6)
    many = Pairs(score.before, score.after, bounds=UNIT, failed=7)
    assert decide(Policy("f1"), {"f1": few}).decision == "GO"
    verdict = decide(Policy("f1"), {"f1": many})
    assert verdict.decision == "INCONCLUSIVE"
    assert verdict.reason.startswith("7 of 307 items have no value of f1 because a system or its scorer failed")
    for failed, why in ((40, "on all 40 a system or its scorer failed"), (0, "there is none")):
        empty = decide(Policy("f1"), {"f1": Pairs([], [], failed=failed)})
        assert empty.decision == "INCONCLUSIVE" and why in empty.reason


def test_what_is_no_comparison_is_refused_by_name() -> None:
    score = scored(RNG)
    with pytest.raises(InputError, match=r"metric 'ndcg@10'.*\n.*'ndcg@5'"):
        decide(Policy("ndcg@10"), {"ndcg@5": score})
    with pytest.raises(InputError, match="1 of 300 scores of the candidate are not finite"):
        decide(Policy("f1"), {"f1": Pairs(score.before, np.append(score.after[1:], math.nan))})  # type: ignore[index]
    with pytest.raises(InputError, match="300 scores, the candidate 299"):
        decide(Policy("f1"), {"f1": Pairs(score.before, score.after[1:])})  # type: ignore[index]
    with pytest.raises(InputError, match=r"no slice 'language'.*\n.*source"):
        sliced = Pairs(score.before, score.after, slices={"source": ["a"] * 300})
        decide(Policy("f1", slices=SliceRule(("language",))), {"f1": sliced})
    with pytest.raises(InputError, match="-1 items failed"):
        decide(Policy("f1"), {"f1": Pairs(score.before, score.after, failed=-1)})


def test_each_kind_of_value_gets_its_interval() -> None:
    n = 300
    graded, times = scored(RNG), Pairs(TIMES, TIMES * 1.1)
    codes = np.repeat(np.arange(50), 6)
    ones = Pairs(np.ones(n), np.ones(n), bounds=UNIT)
    rule = superiority()
    assert difference_interval(graded, rule) == paired_difference(graded.before, graded.after).difference
    assert "Hall" in difference_interval(times, rule).method
    assert "bootstrap" in difference_interval(times, Rule("superiority", statistic="p90")).method
    assert difference_interval(times, Rule("superiority", relative=True)).estimate == pytest.approx(0.1)
    methods = {
        candidate_interval(pairs, limit).method
        for pairs, limit in (
            (ones, Limit("m", at_least=0.5)),
            (Pairs(np.ones(n), np.ones(n), codes, bounds=UNIT), Limit("m", at_least=0.5)),
            (graded, Limit("m", at_least=0.5)),
            (Pairs(graded.before, graded.after, codes, bounds=UNIT), Limit("m", at_least=0.5)),
            (times, Limit("m", at_most=0.5)),
            (times, Limit("m", at_most=0.5, statistic="p95")),
        )
    }
    assert methods == {
        "Clopper-Pearson",
        "Clopper-Pearson, effective n",
        "betting",
        "t, cluster-robust (CR2), skewness (Hall)",
        "t, skewness (Hall)",
        "order statistics",
    }


def test_how_many_more_safe_answers_it_takes() -> None:
    """The lower end of n of n is 0.025^(1/n), which is 0.99 at 367."""
    safe = {"safe": Pairs(np.ones(300), np.ones(300), bounds=UNIT), "f1": scored(RNG)}
    verdict = decide(Policy("f1", limits=(Limit("safe", at_least=0.99),)), safe)
    assert verdict.decision == "INCONCLUSIVE" and verdict.n_needed == pytest.approx(68, abs=3)


def test_marks_that_never_varied_may_yet() -> None:
    codes = np.repeat(np.arange(40), 5)
    half = Pairs(np.full(200, 0.5), np.full(200, 0.5), codes, bounds=UNIT)
    found = candidate_interval(half, Limit("m", at_least=0.4))
    assert found.low == pytest.approx(0.5 * 0.025 ** (1 / 40)) and 0.5 < found.high < 0.6


def test_a_tail_that_too_few_items_show_is_inconclusive_and_says_how_many_it_takes() -> None:
    policy = Policy("latency_ms", Rule("non-inferiority", 0.1, "lower", statistic="p99", relative=True))
    verdict = decide(policy, {"latency_ms": Pairs(TIMES, TIMES)})
    assert verdict.decision == "INCONCLUSIVE" and "1,000 items" in verdict.reason


def test_a_slice_that_is_harmed_is_found_below_a_better_average() -> None:
    rng = np.random.default_rng(2)
    language = np.repeat(["en", "de", "fr", "xx"], [250, 100, 40, 10])
    old = rng.random(400) * 0.5 + 0.25
    new = old + rng.normal(0.1, 0.1, 400) - 0.25 * (language == "fr")
    values = {"f1": Pairs(old, new, slices={"language": language.tolist()}, bounds=(-1.0, 2.0))}
    verdict = decide(Policy("f1", slices=SliceRule(("language",))), values)
    assert dict(verdict.checks)["f1"].decision == "GO"
    assert verdict.decision == "NO-GO" and "f1 of language fr" in verdict.reason and "Holm" in verdict.reason
    parts = dict(dict(verdict.checks)["f1 by language"].checks)
    assert [parts[name].decision for name in ("en", "de", "fr", "xx")] == ["GO", "GO", "NO-GO", "INCONCLUSIVE"]
    mild = decide(Policy("f1", slices=SliceRule(("language",), margin=0.3)), values)
    assert mild.decision == "GO" and "3 tested, 1 too small to test" in dict(mild.checks)["f1 by language"].reason
    strict = decide(Policy("f1", slices=SliceRule(("language",), "non-inferiority", 0.3)), values)
    assert strict.decision == "INCONCLUSIVE", "the smallest slice shows nothing"
    large = SliceRule(("language",), min_items=500)
    assert "none was tested" in decide(Policy("f1", slices=large), values).reason


def test_slices_overlap_and_have_a_direction() -> None:
    n = 100
    tags = [["a", "b"] if i % 2 else ["a"] for i in range(n)]
    before, after = np.zeros(n), np.ones(n) + np.arange(n) / 1e3
    up = slice_differences(before, after, tags)
    down = slice_differences(before, after, tags, better="lower")
    assert (up["a"].difference.n, up["b"].difference.n) == (100, 50)
    assert up["a"].p_harm == pytest.approx(1) and down["a"].p_holm == pytest.approx(0)


def test_harm_is_wrongly_seen_in_any_of_many_slices_at_most_at_the_stated_rate() -> None:
    rng = np.random.default_rng(3)
    slices, alarms = np.repeat(np.arange(10), 30).astype(str).tolist(), 0
    policy = Policy("f1", slices=SliceRule(("topic",)))
    for _ in range(400):
        hard = rng.normal(size=300)
        old, new = ((hard + rng.normal(0, 0.5, 300) < 0.5).astype(float) for _ in range(2))
        verdict = decide(policy, {"f1": Pairs(old, new, slices={"topic": slices}, bounds=UNIT)})
        alarms += dict(verdict.checks)["f1 by topic"].decision == "NO-GO"
    assert alarms / 400 <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 400)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=60, max_size=120),
    up=st.floats(0, 0.5),
    margin=st.floats(0.01, 0.3),
)
def test_a_candidate_that_scores_higher_everywhere_never_gets_a_worse_verdict(
    values: list[tuple[float, float]], up: float, margin: float
) -> None:
    order = ["NO-GO", "INCONCLUSIVE", "GO"]
    old, new = (np.array(side) for side in zip(*values))
    policy = Policy("f1", non_inferiority(margin))
    before = decide(policy, {"f1": Pairs(old, new + 1e-3)}).decision
    after = decide(policy, {"f1": Pairs(old, new + 1e-3 + up)}).decision
    assert order.index(after) >= order.index(before)
