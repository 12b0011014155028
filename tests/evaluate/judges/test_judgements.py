"""From opinions to judgements, calibrations and findings: what is counted, what is corrected, what is said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.core.errors import InputError
from windlass.evaluate.judges.calibration import Calibration, calibrate
from windlass.evaluate.judges.finding import CHOSEN, NEVER, SAME_RATES, SAMPLE, differences_found, findings
from windlass.evaluate.judges.items import Item, Label
from windlass.evaluate.judges.judge import FIRST, SECOND, TIE, Criterion, Judge, Level
from windlass.evaluate.judges.judgement import Judgement, Opinion, both_ways, settled, voted

YES_NO = Criterion("correct", "Is it right?", (Level("no", 0), Level("yes", 1)))
GRADES = Criterion("tone", "Is it kind?", tuple(Level(str(n), n) for n in range(1, 6)), passes="4")
RUBRIC = Judge("correct", "Be strict.", criteria=(YES_NO,), models=("m",))
GRADED = Judge("tone", "Be kind.", criteria=(GRADES,), models=("m",))
PAIR = Judge("better", "Follow the input.", "pairwise", models=("m",))


def said(value: float, item: str, criterion: str = "correct", cost: float | None = 0.01) -> Judgement:
    level = {"correct": {1.0: "yes", 0.0: "no"}, "tone": {n: str(int(n)) for n in range(1, 6)}}[criterion][value]
    return Judgement(item, {criterion: value}, (Opinion("m", {criterion: level}, cost_usd=cost),))


def failed(item: str) -> Judgement:
    return settled(RUBRIC, Item(item, {}), [Opinion("m", error="no answer fits", cost_usd=0.01)])


def items(count: int, chosen: str = "") -> list[Item]:
    return [Item(f"i{n}", {"input": "q", "output": str(n)}, chosen=chosen) for n in range(count)]


# opinions -------------------------------------------------------------------------------------------------------------


@given(st.sampled_from([FIRST, SECOND, TIE]), st.sampled_from([FIRST, SECOND, TIE]))
def test_a_pair_turned_round_says_the_same_or_is_a_tie(there: str, back: str) -> None:
    mirrored = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}
    one = both_ways("preferred", Opinion("m", {"preferred": there}), Opinion("m", {"preferred": back}))
    other = both_ways(
        "preferred", Opinion("m", {"preferred": back}), Opinion("m", {"preferred": there})
    )  # the outputs given the other way round
    assert one.consistent is (there == mirrored[back])
    assert one.levels["preferred"] == (there if one.consistent else TIE)
    assert other.levels["preferred"] == mirrored[one.levels["preferred"]]


def test_one_way_that_failed_is_no_opinion_and_its_cost_counts() -> None:
    one = both_ways(
        "preferred", Opinion("m", {"preferred": FIRST}, cost_usd=0.1), Opinion("m", error="x", cost_usd=0.2)
    )
    assert one.error == "x" and one.cost_usd == pytest.approx(0.3) and not one.levels
    assert both_ways("preferred", Opinion("m", error="x", cost_usd=None), Opinion("m", error="y")).cost_usd is None


def test_a_panel_takes_all_of_its_members() -> None:
    panel = replace(RUBRIC, models=("a", "b", "c"))
    opinions = [Opinion(name, {"correct": level}, cost_usd=0.1) for name, level in zip("abc", ("yes", "yes", "no"))]
    whole = settled(panel, Item("i", {}), opinions)
    assert whole.values == {"correct": 1.0} and not whole.unanimous and whole.cost_usd == pytest.approx(0.3)
    broken = settled(panel, Item("i", {}), [*opinions[:2], Opinion("c", error="refused")])
    assert broken.error == "c: refused" and not broken.values


@pytest.mark.parametrize(
    ("vote", "levels", "value"),
    [
        ("median", ["1", "2", "5"], 2.0), ("median", ["1", "4"], 2.5), ("mean", ["1", "2", "5"], 8 / 3),
        ("majority", ["5", "1", "5"], 5.0), ("majority", ["1", "4"], 2.5), ("majority", ["3"], 3.0),
    ],
)  # fmt: skip
def test_votes(vote: str, levels: list[str], value: float) -> None:
    assert voted(vote, GRADES, levels) == pytest.approx(value)  # type: ignore[arg-type]


def test_a_judgement_is_the_same_after_a_file() -> None:
    whole = settled(
        RUBRIC, Item("i", {}), [Opinion("m", {"correct": "yes"}, {"correct": "so"}, None, True, 0.1, ("t",))]
    )
    assert Judgement.from_json(json.loads(json.dumps(whole.to_json()))) == whole


# calibration ----------------------------------------------------------------------------------------------------------


def known(count: int = 100, chosen: str = "") -> Calibration:
    """People pass the even ones; the judge errs on two passes of ten and on one fail of ten."""
    labels = [Label(f"i{n}", "correct", float(n % 2 == 0)) for n in range(count)]
    judgements = [said(float(n % 20 not in (0, 2, 4, 6) if n % 2 == 0 else n % 20 == 1), f"i{n}") for n in range(count)]
    (found,) = calibrate(RUBRIC, items(count, chosen), judgements, labels)
    return found


def test_rates_against_people() -> None:
    found = known()
    assert found.rates is not None
    assert (found.rates.sensitivity.estimate, found.rates.specificity.estimate) == (0.6, 0.9)
    assert found.agreement.estimate == 0.75 and found.kappa is not None
    assert found.kappa.estimate == pytest.approx(0.5) and found.kappa.low < 0.5 < found.kappa.high
    text = found.render()
    assert len(found.misses) == 25 and all(row.human != row.judge for row in found.misses)
    assert "sensitivity" in text and "0.600" in text and "few" not in text
    assert "are few" in known(40).render()


def test_people_who_differ_are_averaged_and_splits_counted() -> None:
    labels = [Label("i0", "correct", 1, "ann"), Label("i0", "correct", 0, "bo")]
    labels += [Label(f"i{n}", "correct", n % 2, who) for n in range(1, 9) for who in ("ann", "bo", "cy")]
    judgements = [said(n % 2, f"i{n}") for n in range(9)]
    (found,) = calibrate(RUBRIC, items(9), judgements, labels)
    assert found.split == 1 and found.authors == ["ann", "bo", "cy"] and found.rows[0].human == 0.5
    assert found.rates is not None and found.rates.sensitivity.n == 4
    assert found.people is not None and found.people.estimate < 1
    assert "as many people pass as fail" in found.render()


def test_items_that_the_judge_failed_on_are_counted_apart() -> None:
    labels = [Label(f"i{n}", "correct", n % 2) for n in range(20)]
    judgements = [failed(f"i{n}") if n < 3 else said(n % 2, f"i{n}") for n in range(20)]
    (found,) = calibrate(RUBRIC, items(20), judgements, labels)
    assert found.failed == 3 and len(found.rows) == 17 and "3 labelled items have no judgement" in found.render()
    with pytest.raises(InputError, match="no judgement of any labelled item; the first: no answer fits"):
        calibrate(RUBRIC, items(20), [failed(f"i{n}") for n in range(20)], labels)
    with pytest.raises(InputError, match="both labelled and judged"):
        calibrate(RUBRIC, items(20), judgements, [Label("other", "correct", 1)])


def test_graded_and_paired_judges() -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(1, 6, 80)
    judge = np.clip(people + rng.integers(-1, 2, 80), 1, 5)
    labels = [Label(f"i{n}", "tone", float(v)) for n, v in enumerate(people)]
    (found,) = calibrate(GRADED, items(80), [said(float(v), f"i{n}", "tone") for n, v in enumerate(judge)], labels)
    assert found.weighted_kappa is not None and found.weighted_kappa.estimate > 0.8
    assert "weighted kappa" in found.render()
    opinions = [Opinion("m", {"preferred": FIRST}, consistent=n % 4 != 0) for n in range(40)]
    pairs = [Judgement(f"i{n}", {"preferred": 1.0}, (one,)) for n, one in enumerate(opinions)]
    (found,) = calibrate(PAIR, items(40), pairs, [Label(f"i{n}", "preferred", float(n % 2)) for n in range(40)])
    assert found.consistent is not None and found.consistent.estimate == 0.75 and found.agreement.estimate == 0.5
    assert "both ways round" in found.render()


def test_a_calibration_is_the_same_after_a_file() -> None:
    found = known()
    again = Calibration.from_json(RUBRIC, json.loads(json.dumps(found.to_json())))
    assert again == found and again.render() == found.render()


# findings -------------------------------------------------------------------------------------------------------------


def test_a_judge_that_was_never_calibrated_says_so() -> None:
    (found,) = findings(RUBRIC, [said(n % 2, f"x{n}") for n in range(50)])
    assert not found.calibrated and found.measured[0].people is None and NEVER in found.render()
    assert found.cost_usd == pytest.approx(0.5) and json.loads(json.dumps(found.to_json()))["calibrated"] is False
    (unpriced,) = findings(RUBRIC, [said(1, "a", cost=None), said(0, "b")])
    assert unpriced.cost_usd is None and "cost not known" in unpriced.render()


def test_labels_of_other_items_correct_a_share_by_the_rates() -> None:
    judgements = [said(float(n % 5 < 2), f"x{n}") for n in range(200)]  # it passes 0.4
    (found,) = findings(RUBRIC, judgements, [known()])
    (passed,) = found.measured
    assert passed.name == "passed" and passed.judge.estimate == 0.4 and passed.note == SAME_RATES
    assert passed.people is not None and passed.people.estimate == pytest.approx((0.4 + 0.9 - 1) / (0.6 + 0.9 - 1))
    assert passed.people.high - passed.people.low > passed.judge.high - passed.judge.low
    assert "calibrated on 100" in found.render()


def test_labels_of_these_items_move_the_mean() -> None:
    calibration = known()
    judgements = [said(row.judge, row.item) for row in calibration.rows] + [said(1.0, f"x{n}") for n in range(300)]
    (found,) = findings(RUBRIC, judgements, [calibration])
    (passed,) = found.measured
    assert passed.note == SAMPLE and passed.people is not None and "prediction-powered" in passed.people.method
    (whole,) = findings(RUBRIC, judgements[:100], [calibration])
    assert whole.measured[0].people is not None and whole.measured[0].people.estimate == 0.5  # their own mean


def test_labels_of_one_output_are_none_of_another_output_to_the_same_question() -> None:
    calibration = known()
    other = [replace(said(row.judge, row.item), content="another output") for row in calibration.rows]
    (found,) = findings(RUBRIC, other, [calibration])
    assert found.measured[0].note == SAME_RATES


def test_labels_of_items_that_were_chosen_correct_nothing() -> None:
    (found,) = findings(RUBRIC, [said(1.0, f"x{n}") for n in range(50)], [known(chosen="disagreements")])
    assert found.measured[0].people is None and found.measured[0].note == CHOSEN and found.calibrated
    assert "not drawn at random" in found.render()


def test_items_without_a_judgement_bound_the_mean_and_may_forbid_a_verdict() -> None:
    few = [said(1.0, f"x{n}") for n in range(97)] + [failed(f"y{n}") for n in range(3)]
    (found,) = findings(RUBRIC, few)
    assert found.measured[0].judge.estimate == 1.0 and found.failed == 3 and found.trusted
    assert found.bounds == (pytest.approx(0.97), pytest.approx(1.0)) and "3 of 100" in found.render()
    assert "Most often: no answer fits." in found.render()
    (found,) = findings(RUBRIC, [*few, *(failed(f"z{n}") for n in range(7))])
    assert not found.trusted and "NO VERDICT MAY REST ON THIS" in found.render()
    with pytest.raises(InputError, match="no judgement of any item"):
        findings(RUBRIC, [failed("a")])


def test_two_systems_under_one_judge() -> None:
    before = [said(float(n % 2), f"x{n}") for n in range(200)]
    after = [said(float(n % 4 != 0), f"x{n}") for n in range(200)]
    (found,) = differences_found(RUBRIC, before, after, [known()])
    (passed,) = found.measured
    assert passed.judge.estimate == 0.25 and found.difference
    assert passed.people is not None and passed.people.estimate == pytest.approx(0.25 / 0.5)
    assert "both systems alike" in found.render() and found.cost_usd == pytest.approx(4.0)
    (alone,) = differences_found(RUBRIC, before, after)
    assert alone.measured[0].people is None and NEVER in alone.render()
    broken = [failed("x0"), *after[1:]]
    (partly,) = differences_found(RUBRIC, before, broken)
    assert partly.failed == 1 and partly.items == 200 and partly.measured[0].judge.n == 199
    with pytest.raises(InputError, match="'x199' and 0 more"):
        differences_found(RUBRIC, before[:-1], after)
    with pytest.raises(InputError, match="compares two outputs by itself"):
        differences_found(PAIR, before, after)


def test_a_graded_judge_has_a_share_and_a_mean() -> None:
    judgements = [said(float(1 + n % 5), f"x{n}", "tone") for n in range(50)]
    (found,) = findings(GRADED, judgements)
    assert [(one.name, one.judge.estimate) for one in found.measured] == [("passed", 0.4), ("mean", 3.0)]
    (grouped,) = findings(GRADED, judgements, clusters={f"x{n}": str(n % 5) for n in range(50)})
    assert grouped.measured[1].judge.clusters == 5
