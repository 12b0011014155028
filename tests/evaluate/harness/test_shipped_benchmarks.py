"""The benchmarks that come with windlass: each is read, and fits the public data where they are."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from tests.evaluate.harness.harness_world import Nearby, likelihood, write_rows

from windlass.core.errors import InputError, NotFound
from windlass.evaluate.harness.definitions import read_benchmark, shipped
from windlass.evaluate.harness.items import Asking, make_exam
from windlass.evaluate.harness.perplexity import Perplexity
from windlass.evaluate.harness.requests import Continue, Write
from windlass.evaluate.harness.running import run

DATA = os.environ.get("WINDLASS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="WINDLASS_DATA names no folder with the public data")

CLASSIC = {
    "arc_challenge", "arc_easy", "bbh", "blimp", "boolq", "commonsense_qa", "copa", "gsm8k", "humaneval", "lambada",
    "math_qa", "mbpp", "mmlu", "openbook_qa", "piqa", "pubmed_qa", "strategy_qa", "triviaqa", "winograd", "winogrande",
    "word_problems", "hellaswag", "truthfulqa_mc1", "truthfulqa_mc2",
}  # fmt: skip


def test_the_classic_sets_are_there() -> None:
    assert set(shipped()) >= CLASSIC


@pytest.mark.parametrize("name", shipped())
def test_a_definition_says_what_it_is_and_whose(name: str) -> None:
    benchmark = read_benchmark(name)
    assert benchmark.what and benchmark.source and benchmark.metrics


@needs_data
@pytest.mark.parametrize("name", shipped())
def test_it_fits_the_public_data(name: str) -> None:
    """Every row of it, gold included; and examples stand before the question as they should."""
    benchmark = read_benchmark(name)
    shots = None if isinstance(benchmark, Perplexity) else 1
    try:
        made = make_exam(benchmark, Path(DATA or ""), Asking(shots=shots))
    except NotFound as missing:
        pytest.skip(missing.message)
    assert len({item.id for item in made.items}) == len(made.items) >= 45
    request = made.items[0].requests[0]
    if isinstance(request, Continue | Write):
        prompt = request.context if isinstance(request, Continue) else request.prompt
        assert isinstance(prompt, str) and "\n\n" in prompt


@needs_data
def test_questions_on_one_passage_hang_together() -> None:
    made = make_exam(read_benchmark("boolq"), Path(DATA or ""))
    clusters = {item.cluster for item in made.items}
    assert 1000 < len(clusters) < len(made.items)


def test_hellaswag_is_cleaned_as_lm_eval_does_it(tmp_path: Path) -> None:
    """In the form of its authors' file; what stands in brackets is left of web pages."""
    row = {
        "activity_label": "Home [header] and Garden", "ctx_a": " How to sit [title] Find a  chair. [step] Look.",
        "ctx_b": "the MAN", "endings": ["sits [substeps] down. [title] He rests", " flies  away", "eats", "is a chair"],
        "source_id": "wikihow~1", "split_type": "zeroshot", "label": 0,
    }  # fmt: skip
    write_rows(tmp_path / "lm_eval/hellaswag/hellaswag_val.jsonl", [row, {**row, "ctx_b": "", "label": 2}])
    exam = make_exam(read_benchmark("hellaswag"), tmp_path)
    first, second = exam.items
    asked = [one for one in first.requests if isinstance(one, Continue)]
    assert asked[0].context == "Home and Garden: How to sit. Find a chair. Look. The man"
    assert [one.text for one in asked] == [" sits down.. He rests", " flies away", " eats", " is a chair"]
    assert isinstance(second.requests[0], Continue) and str(second.requests[0].context).endswith(" Look.")
    assert (first.cluster, first.slices) == (second.cluster, {"kind": "zeroshot"})
    results = run(exam, Nearby())
    assert [one.expected for one in results.items] == [0, 2] and set(results.scorers) == {"acc", "acc_norm"}


def test_truthfulqa_asks_for_the_true_answer_and_for_all_of_them(tmp_path: Path) -> None:
    choices = ["Nothing", "You grow melons", "They pass through", "You die"]
    rows = [
        {
            "question": "What if you eat seeds?",
            "mc1_targets": {"choices": choices, "labels": [0, 0, 1, 0]},  # wherever it stands
            "mc2_targets": {"choices": choices, "labels": [1, 0, 1, 0]},
        }
    ] * 2
    (tmp_path / "lm_eval/truthfulqa").mkdir(parents=True)
    path = tmp_path / "lm_eval/truthfulqa/validation.json"
    path.write_text(json.dumps(rows))
    one, several = (make_exam(read_benchmark(f"truthfulqa_mc{n}"), tmp_path) for n in (1, 2))
    request = one.items[0].requests[0]
    assert isinstance(request, Continue) and isinstance(request.context, str)
    assert request.context.startswith("Q: What is human life expectancy in the United States?\nA: Human")
    assert request.context.endswith("Barcelona, Spain.\n\nQ: What if you eat seeds?\nA:") and request.text == " Nothing"
    logs = [likelihood(request.context, f" {choice}").logprob for choice in choices]
    assert run(one, Nearby()).items[0].values == {"acc": float(logs[2] == max(logs))}
    shares = [math.exp(one) for one in logs]
    found = run(several, Nearby())
    assert found.items[0].values["mass"] == pytest.approx((shares[0] + shares[2]) / sum(shares))
    (measure,) = several.benchmark.measures(found.items)
    assert measure.chance == pytest.approx(0.5) and 0 <= measure.interval.low <= measure.interval.high <= 1
    path.write_text(json.dumps([{**rows[0], "mc1_targets": {"choices": choices, "labels": [0, 0, 0]}}] * 2))
    with pytest.raises(InputError, match=r"row 1: gold: \[0, 0, 0\] does not say of 4 choices"):
        make_exam(read_benchmark("truthfulqa_mc1"), tmp_path)


def test_what_is_missing_is_told_with_whose_it_is(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no lm_eval/hellaswag/hellaswag_val\.jsonl\.gz in") as missing:
        make_exam(read_benchmark("hellaswag"), tmp_path)
    assert "HellaSwag, Zellers" in missing.value.hint
    write_rows(tmp_path / "lm_eval/mmlu/test/astronomy_test.csv", [])
    (tmp_path / "lm_eval/mmlu/test/astronomy_test.csv").write_text(
        "question,choice0,choice1,choice2,choice3,answer\n?,a,b,c,d,1\n"
    )
    with pytest.raises(InputError, match="no part 'astronmy'") as misspelt:
        make_exam(read_benchmark("mmlu"), tmp_path, only="astronmy")
    assert misspelt.value.hint == "Did you mean 'mmlu/astronomy'?"
