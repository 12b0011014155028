"""A judge as a metric: its values and errors stand in the results, and its worth in every report of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windlass.core.errors import InputError
from windlass.evaluate.experiments.results import JUDGES, OUTPUT, ItemResult, Results
from windlass.evaluate.judges.calibration import Calibration, Labelled
from windlass.evaluate.judges.judge import Criterion, Judge, Level
from windlass.evaluate.judges.judgement import Judgement
from windlass.evaluate.judges.metric import item_of, judged_items, with_judgements
from windlass.evaluate.judges.trust import trusts

GOOD = Criterion("good", "Good?", (Level("no", 0.0), Level("yes", 1.0)))
JUDGE = Judge("kind", "Be strict.", criteria=(GOOD,), models=("m",))
ITEMS = (
    ItemResult("a", values={"f1": 0.5}, output="one", input={"review": "?"}, trace="t" * 32),
    ItemResult("b", errors={OUTPUT: "the provider failed"}, input={"review": "?"}),
    ItemResult("c", output={"x": 1}, input="asked", repeat=0),
)
RESULTS = Results("v", None, "d", ITEMS)


def test_values_and_errors_by_the_name_of_the_score() -> None:
    assert [item.id for item in judged_items(RESULTS, JUDGE)] == ["a", "c"]
    judged = with_judgements(RESULTS, JUDGE, [Judgement("a", {"good": 1.0}), Judgement("c", error="no verdict")])
    assert judged.items[0].values == {"f1": 0.5, "kind": 1.0} and judged.items[2].errors == {"kind": "no verdict"}
    assert judged.items[1] == RESULTS.items[1] and judged.scorers == {"kind": JUDGE.digest}
    assert trusts([judged])["kind"].worth.startswith("never calibrated")


def test_what_a_calibration_says_goes_with_the_values() -> None:
    rows = [Labelled(str(n), {"ann": float(n % 2)}, float(n % 2)) for n in range(60)]
    judgements = [Judgement("a", {"good": 1.0}), Judgement("c", {"good": 0.0})]
    judged = with_judgements(RESULTS, JUDGE, judgements, [Calibration(JUDGE, GOOD, rows)])
    assert "calibrated on 60 labelled items" in trusts([judged])["kind"].worth
    other = with_judgements(judged, replace(JUDGE, name="other"), judgements)
    assert set(other.made_with[JUDGES]) == {"kind", "other"}


def test_fields_are_found_by_name_or_are_all_there_is() -> None:
    assert item_of(ITEMS[0], JUDGE).inputs == {"input": "?", "output": "one"}
    assert item_of(ITEMS[2], JUDGE).inputs == {"input": "asked", "output": '{\n "x": 1\n}'}
    both = Judge("k", "Be strict.", inputs=("review", "shop", "answer"), reference="right", criteria=(GOOD,))
    one = ItemResult("a", output="x", input={"review": "r", "shop": 3, "more": 1}, expected="good", repeat=2)
    item = item_of(one, both)
    assert item.inputs == {"review": "r", "shop": "3", "right": "good", "answer": "x"} and item.id == "a#2"
    with pytest.raises(InputError, match="no 'shop' in item 'a'"):
        item_of(replace(one, input={"review": "r"}), both)
    with pytest.raises(InputError, match="no 'right'"):
        item_of(replace(one, expected=None), both)


def test_a_pair_is_of_two_results() -> None:
    pair = Judge("p", "Choose.", "pairwise")
    item = item_of(ITEMS[0], pair, replace(ITEMS[0], output="two"))
    assert item.inputs == {"input": "?", "output_1": "one", "output_2": "two"}
    with pytest.raises(InputError, match="two outputs"):
        item_of(ITEMS[0], pair)
