"""Comparing results: pairing by item and repeat, errors, slices, several candidates, storage and reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from windlass.core.errors import InputError
from windlass.evaluate.experiments.experiment import compare
from windlass.evaluate.experiments.pairing import ONE_SIDED, matched, paired
from windlass.evaluate.experiments.planning import planned
from windlass.evaluate.experiments.regressions import difference, regressions
from windlass.evaluate.experiments.reports import junit, markdown, rendered
from windlass.evaluate.experiments.results import OUTPUT, ItemResult, Results
from windlass.evaluate.experiments.several import compare_all, stricter
from windlass.evaluate.experiments.stored import from_json, read_file, to_json, write_experiment
from windlass.evaluate.gate import non_inferiority, superiority
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.paired import paired_difference

F1 = Policy("f1")
LANGUAGES = ("de", "en", "fr")


def made(
    variant: str,
    score: Callable[[int, int], float],
    *,
    n: int = 120,
    repeats: int = 1,
    dataset: str = "d" * 64,
    cluster: int = 1,
) -> Results:
    """`score` of item and repeat."""
    return Results(
        variant,
        None,
        dataset,
        tuple(
            ItemResult(
                f"i{i:03}",
                f"c{i // cluster}",
                r,
                {"f1": score(i, r)},
                output={"answer": "yes" if score(i, r) > 0.5 else "no", "item": i},
                slices={"language": LANGUAGES[i % 3]},
                input={"question": f"Is {i} even?"},
                expected="yes",
            )
            for i in range(n)
            for r in range(repeats)
        ),
        {"f1": "a" * 64},
        made_with={"model": "m"},
    )


def noise(seed: int, gain: float = 0.0, within: float = 0.1, between: float = 0.2) -> Callable[[int, int], float]:
    """Scores around a hardness that all variants share."""
    hardness = np.random.default_rng(1).normal(0, 0.4, 1000)
    own = np.random.default_rng(seed).normal(0, between, 1000)
    chance = np.random.default_rng(seed + 10_000).normal(0, within, (1000, 10))
    return lambda i, r: float(hardness[i] + own[i] + chance[i, r] + gain)


OLD = made("old", noise(2))
BETTER = made("new", noise(3, 0.3))


def test_the_difference_is_the_paired_one() -> None:
    found = compare(OLD, BETTER, F1)
    a, b = ([one.values["f1"] for one in side.items] for side in (OLD, BETTER))
    assert found.comparison("f1").difference == paired_difference(a, b, [f"c{i}" for i in range(120)]).difference
    assert found.verdict.decision == "GO" and found.comparison("f1").better > found.comparison("f1").worse
    with pytest.raises(InputError, match="did not compare 'bleu'"):
        found.comparison("bleu")


def test_items_are_paired_by_name_and_not_by_place() -> None:
    shuffled = replace(BETTER, items=tuple(reversed(BETTER.items)))
    assert compare(OLD, shuffled, F1).comparisons == compare(OLD, BETTER, F1).comparisons


def test_what_cannot_be_compared_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="dataset dddddddddddd, new on eeee"):
        compare(OLD, made("new", noise(3), dataset="e" * 64), F1)
    with pytest.raises(InputError, match="on split"):
        compare(OLD, replace(BETTER, split="dev"), F1)
    with pytest.raises(InputError, match=r"new lacks 20 items \('i100', 'i101', 'i102', …\) of what the other has"):
        compare(OLD, made("new", noise(3), n=100), F1)
    with pytest.raises(InputError, match=r"old lacks 1 item \('i120'\)"):
        compare(OLD, made("new", noise(3), n=121), F1)
    with pytest.raises(InputError, match=r"\(repeat 1\)"):
        compare(OLD, made("new", noise(3), repeats=2), F1)
    with pytest.raises(InputError, match="'f1' of old and of new was computed by different code"):
        compare(OLD, replace(BETTER, scorers={"f1": "b" * 64}), F1)
    with pytest.raises(InputError, match="belongs to cluster 'c0' on one side and 'c1' on the other"):
        matched(made("a", noise(1), cluster=2), made("b", noise(2), cluster=1))


def test_errors_are_counted_with_their_reasons_and_are_no_zeros() -> None:
    def failing(at: int, reason: str, key: str) -> ItemResult:
        return replace(BETTER.items[at], values={}, errors={key: reason})

    some = [failing(0, "the judge timed out", "f1"), failing(1, "down", OUTPUT), *BETTER.items[2:]]
    found = compare(OLD, replace(BETTER, items=some), F1)
    one = found.comparison("f1")
    assert (one.missing, dict(one.reasons), one.difference.n) == (2, {"the judge timed out": 1, "down": 1}, 118)
    assert found.verdict.decision == "GO" and found.excluded == 2
    assert "2 pairs have no f1" in rendered(found)
    absent = [replace(BETTER.items[0], values={}), *BETTER.items[1:]]
    assert compare(OLD, replace(BETTER, items=absent), F1).comparison("f1").reasons == {ONE_SIDED: 1}


def test_a_judge_that_fails_on_30_percent_decides_nothing() -> None:
    some = [
        replace(one, values={}, errors={"f1": "the judge timed out"}) if i % 10 < 3 else one
        for i, one in enumerate(BETTER.items)
    ]
    found = compare(OLD, replace(BETTER, items=some), F1)
    assert found.verdict.decision == "INCONCLUSIVE"
    assert found.verdict.reason.startswith(
        "36 of 120 items have no f1 (36 times: the judge timed out); at most 2 % may"
    )
    lenient = compare(OLD, replace(BETTER, items=some), Policy("f1", error_limit=0.4))
    assert lenient.verdict.decision == "GO" and lenient.comparison("f1").difference.n == 84


def test_a_metric_that_nobody_has_decides_nothing() -> None:
    scored = [replace(side, scorers={**side.scorers, "bleu": "c" * 64}) for side in (OLD, BETTER)]
    found = compare(*scored, Policy("bleu"))
    assert found.verdict.decision == "INCONCLUSIVE" and "No item has the metric bleu" in found.verdict.reason
    assert from_json(json.loads(json.dumps(to_json(found)))) == found
    assert b"INCONCLUSIVE" in junit([found]) and "INCONCLUSIVE" in markdown(found)
    with pytest.raises(InputError, match="The policy names a metric 'f2'"):
        compare(OLD, BETTER, Policy("f2"))


def test_cost_and_latency_are_better_lower() -> None:
    def dearer(results: Results, usd: float) -> Results:
        rows = [
            replace(one, values={**one.values, "cost_usd": usd * (1 + i % 3)}) for i, one in enumerate(results.items)
        ]
        return replace(results, items=rows)

    found = compare(dearer(OLD, 0.001), dearer(BETTER, 0.002), F1).comparison("cost_usd")
    assert (found.direction, found.better, found.worse) == ("lower", 0, 120)
    policy = Policy("f1", guards={"cost_usd": non_inferiority(0.0005, better="lower")})
    assert compare(dearer(OLD, 0.001), dearer(BETTER, 0.002), policy).verdict.decision == "NO-GO"
    assert compare(dearer(OLD, 0.002), dearer(BETTER, 0.001), policy).verdict.decision == "GO"


def test_repeats_are_averaged_by_item_and_their_spread_is_told_apart() -> None:
    old, new = (made(name, noise(seed, within=0.3), n=400, repeats=5) for name, seed in (("old", 2), ("new", 3)))
    column = paired(matched(old, new), "f1")
    assert len(column.items) == 400 and column.repeats is not None
    # Differences of two independent variants have twice the variance of one.
    assert column.repeats.within == pytest.approx(0.3 * 2**0.5, rel=0.1)
    assert column.repeats.between == pytest.approx(0.2 * 2**0.5, rel=0.15)
    assert column.repeats.number == 5 and 0.2 < column.repeats.share < 0.45
    assert compare(old, new, F1).comparison("f1").difference.n == 400, "asking again makes no new items"
    assert "5 times each" in rendered(compare(old, new, F1))


def test_slices_hold_together() -> None:
    def worse_in_french(i: int, r: int) -> float:
        return noise(3, 0.3)(i, r) - (1.5 if i % 3 == 2 else 0.0)

    found = compare(OLD, made("new", worse_in_french), F1)
    by = {one.name: one for one in found.slices}
    assert set(by) == set(LANGUAGES) and {one.by for one in found.slices} == {"language"}
    assert by["fr"].difference.high < 0 < by["de"].difference.low and by["fr"].p_holm < 0.001
    assert by["fr"].difference.level == pytest.approx(1 - 0.05 / 3)
    assert all(one.p_holm >= one.p_value for one in found.slices)
    assert "language: fr" in rendered(found)


def test_slices_of_equal_variants_are_hardly_ever_called_different() -> None:
    called = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scores = rng.normal(size=(2, 60))
        a, b = (made(str(s), lambda i, r, s=s, scores=scores: float(scores[s, i]), n=60) for s in (0, 1))
        found = compare(a, b, F1)
        called += any(one.p_holm < 0.05 for one in found.slices)
    assert called <= 17, "7.5 are expected of 150 at a rate of 0.05, and 18 or more in one of a thousand repetitions"


def test_regressions_come_worst_first_with_their_diff() -> None:
    found = compare(OLD, BETTER, F1)
    worse = regressions(found)
    assert len(worse) == found.comparison("f1").worse
    assert [one.gain for one in worse] == sorted(one.gain for one in worse) and worse[-1].gain < 0
    changed = next(one for one in worse if one.shown[0].output != one.shown[1].output)
    lines = list(difference(changed))
    assert '-  "answer": "yes",' in lines and '+  "answer": "no",' in lines
    text = markdown(found)
    assert f"Regressions: {len(worse)} items, the worst 10" in text and worse[0].item in text


def test_an_output_cannot_end_its_block() -> None:
    some = [replace(one, output="```\n# owned\n```") for one in BETTER.items]
    text = markdown(compare(OLD, replace(BETTER, items=some), F1))
    assert "````diff" in text


def test_junit_tells_worse_from_unknown() -> None:
    for score, tag in ((noise(3, 0.3), None), (noise(3, -0.3), "failure"), (noise(3, 0.01), "error")):
        (suite,) = ElementTree.fromstring(junit([compare(OLD, made("new", score), F1)]))
        case = suite.find("testcase")
        assert case is not None and case.get("name") == "f1" and suite.get("tests") == "1"
        assert [child.tag for child in case] == ([tag] if tag else [])


def test_an_experiment_is_read_back_as_it_was(tmp_path: Path) -> None:
    old, new = (made(name, noise(seed), repeats=2) for name, seed in (("old", 2), ("new", 3)))
    plan = planned("f1", 0.05, 120, deviation=0.3)
    found = compare(old, new, Policy("f1", guards={}, error_limit=0.1), seed=3, plan=plan)
    write_experiment(tmp_path, found)
    assert read_file(tmp_path / "experiment.json") == found
    row = json.loads((tmp_path / "experiment.json").read_text())
    assert [len(row["items"]), len(row["items"][0]["candidate"])] == [120, 2]
    for wrong in ({"verdict": 1}, {**row, "format": "windlass.experiment/0"}, {**row, "comparisons": [{}]}):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=r"wrong\.json .*"):
            read_file(tmp_path / "wrong.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_file(tmp_path / "none.json")


def test_power_is_stated_from_a_pilot_or_from_an_assumption() -> None:
    assumed = planned("f1", 0.1, 200)
    assert assumed.basis == "assumption" and 0.75 < assumed.power < 0.85 and assumed.needed == 197
    differences = np.random.default_rng(0).normal(0, 0.5, 400)
    pilot = planned("f1", 0.1, 200, pilot=differences)
    assert pilot.basis == "pilot" and pilot.deviation == pytest.approx(0.5, rel=0.1)
    alike = planned("f1", 0.1, 200, pilot=np.repeat(differences[:100], 4), clusters=np.repeat(np.arange(100), 4))
    assert alike.needed > 3 * pilot.needed, "items of one cluster say less"
    assert planned("f1", 0.1, 50, pilot=np.zeros(50)).power == 1.0
    for effect, items in ((0.0, 10), (-1.0, 10), (float("nan"), 10), (0.1, 0)):
        with pytest.raises(InputError):
            planned("f1", effect, items)


def test_the_stated_power_is_the_share_of_repetitions_that_find_the_effect() -> None:
    rng = np.random.default_rng(4)
    plan = planned("f1", 0.12, 150, deviation=0.5)
    found = [paired_difference(np.zeros(150), rng.normal(0.12, 0.5, 150)).difference.low > 0 for _ in range(1500)]
    assert np.mean(found) == pytest.approx(plan.power, abs=0.04)


def test_several_candidates_are_judged_together() -> None:
    clear, some, none = (made(f"v{k}", noise(3 + k, gain)) for k, gain in enumerate((0.5, 0.3, 0.0)))
    found = compare_all(OLD, [some, none, clear], F1)
    assert [one.candidate.variant for one in found] == ["v1", "v2", "v0"]
    assert [one.verdict.decision for one in found][::2] == ["GO", "GO"] and found[1].verdict.decision != "GO"
    assert found[2].policy.rule.error_rate == pytest.approx(0.025 / 3)
    assert found[0].policy.rule.error_rate == pytest.approx(0.025 / 2)
    assert compare_all(OLD, [clear], F1)[0] == compare(OLD, clear, F1)
    with pytest.raises(InputError, match="nothing to compare"):
        compare_all(OLD, [], F1)


def test_of_many_equal_candidates_hardly_ever_one_is_promoted() -> None:
    policy = stricter(Policy("f1", superiority(error_rate=0.1)), 1)
    promoted = 0
    for seed in range(50):
        scores = np.random.default_rng(seed).normal(size=(4, 50))
        sides = [made(str(s), lambda i, r, s=s, scores=scores: float(scores[s, i]), n=50) for s in range(4)]
        promoted += any(one.verdict.decision == "GO" for one in compare_all(sides[0], sides[1:], policy))
    assert promoted <= 12, "5 are expected of 50 at a rate of 0.1, and 13 or more in one of a thousand repetitions"
