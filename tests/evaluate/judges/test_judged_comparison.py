"""Two results by one judge: the difference is the one that people would find, where the judge was calibrated."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.experiments.experiment import Experiment, code_digests, compare
from windlass.evaluate.experiments.reports import junit, markdown, rendered
from windlass.evaluate.experiments.results import JUDGES, ItemResult, Results
from windlass.evaluate.experiments.stored import from_json, to_json
from windlass.evaluate.gate import Limit, superiority
from windlass.evaluate.judges.calibration import Calibration, Labelled
from windlass.evaluate.judges.correcting import corrected
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.judges.metric import judged_items, with_judgements
from windlass.evaluate.judges.trust import Trust
from windlass.evaluate.policy import Policy
from windlass.evaluate.statistics.judged import rogan_gladen, rogan_gladen_difference

GOOD = Criterion("good", "Good?", (Level("no", 0.0), Level("yes", 1.0)))
JUDGE = Judge("kind", "Be strict.", criteria=(GOOD,), models=("m",))
GRADED = Judge(
    "grade", "Be strict.", criteria=(Criterion("g", "How?", tuple(Level(str(n), float(n)) for n in range(4))),)
)


def said(variant: str, values: list[float], judge: Judge = JUDGE, *known: Calibration, repeats: int = 1) -> Results:
    """Results of a variant whose outputs a judge gave these values; `known`: its calibration."""
    items = tuple(
        ItemResult(f"i{n // repeats}", repeat=n % repeats, output=f"{variant} {n}", input=f"asked {n // repeats}")
        for n in range(len(values))
    )
    plain = Results(variant, None, "d", items)
    name = judge.criteria[0].name
    judgements = [
        Judgement(item.id, {name: value}, content=item.content)
        for item, value in zip(judged_items(plain, judge), values)
    ]
    return with_judgements(plain, judge, judgements, known)


def labelled(human: list[float], judge: list[float], keys: list[str] | None = None) -> list[Labelled]:
    return [
        Labelled(f"l{n}", {"ann": h}, j, content=keys[n] if keys else f"content {n}")
        for n, (h, j) in enumerate(zip(human, judge))
    ]


HUMAN = [1.0] * 60 + [0.0] * 60
SAYS = [1.0] * 54 + [0.0] * 6 + [0.0] * 48 + [1.0] * 12  # sensitivity 0.9, specificity 0.8
KNOWN = Calibration(JUDGE, GOOD, labelled(HUMAN, SAYS))
OLD = [float(n % 2 == 0) for n in range(300)]
NEW = [float(n % 2 == 0 or n % 6 == 1) for n in range(300)]
POLICY = Policy("kind")


def test_a_calibrated_judge_is_corrected_without_being_asked() -> None:
    found = compare(said("old", OLD, JUDGE, KNOWN), said("new", NEW, JUDGE, KNOWN), POLICY)
    one = found.comparison("kind")
    right = rogan_gladen_difference(OLD, NEW, HUMAN, SAYS)
    assert (one.difference.low, one.difference.high) == pytest.approx((right.low, right.high))
    assert one.candidate.low == pytest.approx(rogan_gladen(NEW, HUMAN, SAYS).low)
    assert one.judged is not None and one.judged.corrected
    assert one.judged.difference.estimate == pytest.approx(1 / 6) and one.difference.estimate == pytest.approx(1 / 4.2)
    assert found.verdict.decision == "GO" and dict(found.verdict.checks)["kind"].interval == one.difference
    for told in (rendered(found), markdown(found), junit([found]).decode()):
        assert "calibrated on 120 labelled items" in told and "the judge itself says +0.1667" in told
        assert "NEVER" not in told
    assert from_json(json.loads(json.dumps(to_json(found)))) == found


def test_the_labels_uncertainty_may_take_the_verdict_away() -> None:
    new = [float(n % 2 == 0 or n % 60 == 1) for n in range(300)]
    sides = OLD, new
    raw = compare(said("old", OLD), said("new", new), POLICY)
    assert raw.verdict.decision == "GO"
    few = Calibration(JUDGE, GOOD, labelled([1.0] * 6 + [0.0] * 6, [1.0] * 6 + [0.0] * 5 + [1.0]))
    worn = compare(*(said(name, one, JUDGE, few) for name, one in zip(("old", "new"), sides)), POLICY)
    assert worn.comparison("kind").difference.low < raw.comparison("kind").difference.low
    guess = Calibration(JUDGE, GOOD, labelled(HUMAN, [float(n % 2) for n in range(120)]))
    found = compare(*(said(name, one, JUDGE, guess) for name, one in zip(("old", "new"), sides)), POLICY)
    assert found.verdict.decision == "INCONCLUSIVE" and "cannot be told from one that guesses" in found.verdict.reason
    assert "not corrected" in rendered(found)


def test_one_that_was_never_calibrated_is_called_so_everywhere() -> None:
    found = compare(said("old", OLD), said("new", NEW), POLICY)
    assert found.verdict.decision == "GO" and "NEVER CALIBRATED: kind." in found.verdict.reason
    for told in (rendered(found), markdown(found), junit([found]).decode()):
        assert "never calibrated: how the judge stands to people is not known" in told
    beside = replace(
        found.incumbent, items=tuple(replace(o, values={**o.values, "f1": 0.5}) for o in found.incumbent.items)
    )
    shown = compare(beside, replace(beside, variant="same"), Policy("f1"))
    assert "NEVER" not in shown.verdict.reason and "never calibrated" in rendered(shown), "the policy asks for f1 alone"


def test_the_larger_of_two_calibrations_counts() -> None:
    found = compare(said("old", OLD), said("new", NEW, JUDGE, KNOWN), POLICY)
    judged = found.comparison("kind").judged
    assert judged is not None and judged.corrected and "NEVER" not in found.verdict.reason


def graded(old: NDArray[np.float64], new: NDArray[np.float64], known: Calibration) -> Experiment:
    sides = (said(name, list(one), GRADED, known) for name, one in (("old", old), ("new", new)))
    return compare(*sides, Policy("grade"))


def test_labels_of_both_outputs_correct_any_scale() -> None:
    rng = np.random.default_rng(0)
    old = rng.integers(0, 3, 200).astype(float)
    new = old + (rng.random(200) < 0.4)
    keys = [[item.content for item in judged_items(said(name, list(old), GRADED), GRADED)] for name in ("old", "new")]
    people = old[:60] + (rng.random(60) < 0.1) - (rng.random(60) < 0.1)
    rows = labelled([*old[:60], *people], [*old[:60], *new[:60]], [*keys[0][:60], *keys[1][:60]])
    known = Calibration(GRADED, GRADED.criteria[0], rows)
    found = graded(old, new, known)
    one = found.comparison("grade")
    assert one.judged is not None and one.judged.difference.low > 0.25 and "random sample" in one.judged.note
    assert one.difference.low < 0 < one.difference.high, "people see no gain where the judge sees one"
    same = replace(known, rows=labelled([*old[:60], *old[:60]], [*old[:60], *new[:60]], [*keys[0][:60], *keys[1][:60]]))
    none = graded(old, new, same).comparison("grade").difference
    assert (none.low, none.high, none.n) == (0.0, 0.0, 60), "what never varied is known of the labelled items alone"
    other = replace(known, rows=labelled([*old[:60]], [*old[:60]]))
    judged = graded(old, new, other).comparison("grade").judged
    assert judged is not None and not judged.corrected and "only a share of passes" in str(judged)


def test_labels_of_chosen_items_correct_nothing() -> None:
    chosen = replace(KNOWN, chosen=3)
    found = compare(said("old", OLD, JUDGE, chosen), said("new", NEW, JUDGE, chosen), POLICY)
    judged = found.comparison("kind").judged
    assert judged is not None and not judged.corrected and "not drawn at random" in rendered(found)


def test_repeats_are_no_further_items() -> None:
    once = compare(said("old", OLD, JUDGE, KNOWN), said("new", NEW, JUDGE, KNOWN), POLICY)
    thrice = [said(n, list(np.repeat(one, 3)), JUDGE, KNOWN, repeats=3) for n, one in (("old", OLD), ("new", NEW))]
    found = compare(thrice[0], thrice[1], POLICY)
    widths = [one.difference.high - one.difference.low for one in (c.comparison("kind") for c in (once, found))]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)


def test_levels_of_another_size_and_limits() -> None:
    wide = Judge("wide", "Be strict.", criteria=(Criterion("w", "?", (Level("no", 1.0), Level("yes", 5.0))),))
    known = Calibration(wide, wide.criteria[0], labelled([1 + 4 * h for h in HUMAN], [1 + 4 * s for s in SAYS]))
    old, new = ([1 + 4 * one for one in some] for some in (OLD, NEW))
    policy = Policy("wide", superiority(), limits=(Limit("wide", at_least=2.0),))
    found = compare(said("old", old, wide, known), said("new", new, wide, known), policy)
    one = found.comparison("wide")
    right = rogan_gladen_difference(OLD, NEW, HUMAN, SAYS)
    assert one.difference.low == pytest.approx(4 * right.low)
    assert dict(found.verdict.checks)["wide, floor"].interval == one.candidate
    assert 1 <= one.candidate.low <= one.candidate.high <= 5


def test_a_corrected_difference_is_wrongly_above_zero_as_seldom_as_it_says() -> None:
    """A judge that errs, with labels of its own, of two variants that people find equally good."""
    rng = np.random.default_rng(3)
    human = np.r_[np.ones(40), np.zeros(40)]

    def by_judge(truth: NDArray[np.float64]) -> list[float]:
        return list(np.where(rng.random(truth.size) < np.where(truth == 1, 0.9, 0.25), 1.0, 0.0))

    wrong, repeats = 0, 300
    for _ in range(repeats):
        old = rng.random(100) < 0.6
        new = np.where(rng.random(100) < 0.3, rng.random(100) < 0.6, old)
        trust = Trust(JUDGE, GOOD, Calibration(JUDGE, GOOD, labelled(list(human), by_judge(human))))
        sides = (by_judge(truth.astype(float)) for truth in (old, new))
        rows = [[ItemResult(str(n), values={"kind": v}) for n, v in enumerate(side)] for side in sides]
        found = corrected("kind", list(zip(*rows)), trust, 0.9).difference
        wrong += found is not None and found.low > 0
    assert wrong / repeats <= 0.05 + 2.5 * (0.05 * 0.95 / repeats) ** 0.5


def test_a_judge_that_errs_on_a_third_decides_nothing_and_its_errors_are_in_no_mean() -> None:
    plain = [Results(name, None, "d", said(name, OLD).items) for name in ("old", "new")]
    bare = [replace(one, items=tuple(replace(item, values={}) for item in one.items)) for one in plain]
    sides = []
    for results, values in zip(bare, (OLD, NEW)):
        judgements = [
            Judgement(item.id, error="no verdict")
            if n % 10 < 3
            else Judgement(item.id, {"good": value}, (), None, item.content)
            for n, (item, value) in enumerate(zip(judged_items(results, JUDGE), values))
        ]
        sides.append(with_judgements(results, JUDGE, judgements, [KNOWN]))
    found = compare(sides[0], sides[1], POLICY)
    assert found.verdict.decision == "INCONCLUSIVE" and "90 of 300 items have no kind" in found.verdict.reason
    judged = found.comparison("kind")
    kept = [n for n in range(300) if n % 10 >= 3]
    assert judged.judged is not None and judged.missing == 90
    assert judged.judged.difference.estimate == pytest.approx(np.mean([NEW[n] - OLD[n] for n in kept]))


def test_the_record_holds_the_code_of_all_that_decides() -> None:
    for module in (
        "deciding",
        "gate",
        "policy",
        "slices",
        "judges.correcting",
        "statistics.paired",
        "metrics.catalogue",
    ):
        assert f"{module.replace('.', '/')}.py" in code_digests()


def test_results_of_an_earlier_form_are_refused() -> None:
    old = said("old", OLD)
    worn = replace(old, made_with={JUDGES: {"kind": "calibrated on 10 items"}})
    with pytest.raises(InputError, match="judged by an earlier version"):
        compare(worn, worn, POLICY)
