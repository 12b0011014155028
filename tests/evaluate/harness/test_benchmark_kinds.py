"""What each kind makes of replies, against figures that were worked out by hand or in another way."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.evaluate.harness.harness_world import Nearby, likelihood, write_benchmark, write_rows

from windlass.core.errors import InputError
from windlass.core.protocols import Likelihood
from windlass.evaluate.experiments.results import ItemResult, Results
from windlass.evaluate.harness.choice import Choice
from windlass.evaluate.harness.definitions import read_benchmark
from windlass.evaluate.harness.extraction import Answer
from windlass.evaluate.harness.items import Asking, Exam, make_exam
from windlass.evaluate.harness.running import run


def asked(
    folder: Path, text: str, rows: list[dict[str, object]], model: Nearby | None = None, **asking: int
) -> tuple[Exam, Results]:
    write_rows(folder / "rows.jsonl", rows)
    benchmark = read_benchmark(write_benchmark(folder / "mine.toml", 'data = "rows.jsonl"\n' + text))
    exam = make_exam(benchmark, folder, Asking(**asking))
    return exam, run(exam, model or Nearby())


def test_every_way_of_normalising_a_choice() -> None:
    """Five choices, each of which is the best in one way only."""
    choices = ["a" * 10, "b", "é" * 8, "ccc", "dd"]
    conditional = [(-4.0, 4), (-3.0, 1), (-3.9, 6), (-3.3, 30), (-3.5, 1)]
    alone = [-4.0, -3.0, -3.9, -3.3, -30.0]
    benchmark = Choice(
        what="", data="", choices=("{a}", "{b}", "{c}", "{d}", "{e}"), gold="0",
        metrics=("acc", "acc_norm", "acc_bytes", "acc_token", "acc_mutual_info"),
    )  # fmt: skip
    replies = [Likelihood(logprob, False, tokens) for logprob, tokens in conditional]
    replies += [Likelihood(logprob, False, 1) for logprob in alone]
    scored = benchmark.score(dict(zip("abcde", choices)), replies)
    assert scored.output["choices"] == {"acc": 1, "acc_norm": 0, "acc_bytes": 2, "acc_token": 3, "acc_mutual_info": 4}
    assert scored.values == {"acc": 0, "acc_norm": 1, "acc_bytes": 0, "acc_token": 0, "acc_mutual_info": 0}


def test_choices_behind_a_question(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"q": "abc", "c": ["d", "zq"], "g": "zq"}, {"q": "xyz", "c": ["a", "z"], "g": "1"}]
    text = 'kind = "choice"\nprompt = "{q}"\nchoices = "{c}"\ngold = "{g}"\nmetrics = ["acc", "acc_mutual_info"]'
    _, results = asked(tmp_path, text, rows)
    for one, row in zip(results.items, rows):
        choices = [str(c) for c in row["c"]]  # type: ignore[attr-defined]
        scores = np.array([likelihood(str(row["q"]), " " + c).logprob for c in choices])
        alone = np.array([likelihood("", " " + c).logprob for c in choices])
        assert one.values == {
            "acc": float(scores.argmax() == 1),
            "acc_mutual_info": float((scores - alone).argmax() == 1),
        }
        assert one.expected == 1


def test_schemata_compare_one_text_behind_two_contexts(tmp_path: Path) -> None:
    row: dict[str, object] = {"c": ["the dog", "the cat"], "t": "slept", "g": 1}
    model = Nearby()
    _, results = asked(tmp_path, 'kind = "schema"\ncontexts = "{c}"\ncontinuation = "{t}"\ngold = "{g}"', [row], model)
    assert set(model.asked) == {("the dog", " slept"), ("the cat", " slept")}
    assert results.items[0].values == {
        "acc": float(likelihood("the cat", " slept").logprob > likelihood("the dog", " slept").logprob)
    }


def test_a_continuation_is_greedy_or_not_and_has_a_perplexity(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"p": "x", "t": "YES"}, {"p": "x", "t": "no"}, {"p": "y", "t": "MAY"}]
    exam, results = asked(tmp_path, 'kind = "continuation"\nprompt = "{p}"\ntarget = "{t}"', rows)
    acc, perplexity = exam.benchmark.measures(results.items)
    assert acc.interval.estimate == pytest.approx(2 / 3)
    mean = np.mean([likelihood(str(row["p"]), f" {row['t']}").logprob for row in rows])
    assert perplexity.interval.estimate == pytest.approx(math.exp(-mean)) and perplexity.better == "lower"
    assert perplexity.interval.low < perplexity.interval.estimate < perplexity.interval.high


def test_perplexities_weigh_texts_by_their_size(tmp_path: Path) -> None:
    texts = ["one two  three", "é", "a longer text of several words\nin lines"]
    exam, results = asked(tmp_path, 'kind = "perplexity"', [{"text": text} for text in texts])
    measures = {one.metric: one.interval.estimate for one in exam.benchmark.measures(results.items)}
    total = sum(likelihood("", text).logprob for text in texts)
    size, words = sum(len(text.encode()) for text in texts), sum(len(re.split(r"\s+", text)) for text in texts)
    assert measures["bits_per_byte"] == pytest.approx(-total / size / math.log(2))
    assert measures["byte_perplexity"] == pytest.approx(math.exp(-total / size))
    assert measures["word_perplexity"] == pytest.approx(math.exp(-total / words))


GSM = """kind = "answer"
prompt = "{q}"
answers = "{a}"
stop = ["\\n\\n"]
[extract.strict]
pattern = '#### (-?[0-9.,]+)'
alike = "number"
[extract.last]
pick = "last"
alike = "number"
"""


@pytest.mark.parametrize(
    ("said", "strict", "last"),
    [("so 3.\n#### 1,234", 1, 1), ("it is 1234.", 0, 1), ("#### 5 or 1234", 0, 1), ("none", 0, 0),
     ("#### $1,234.0", 0, 1)],
)  # fmt: skip
def test_written_answers_are_taken_out_of_the_text(tmp_path: Path, said: str, strict: int, last: int) -> None:
    _, results = asked(tmp_path, GSM, [{"q": "?", "a": 1234.0}], Nearby(answers=[said]))
    assert results.items[0].values == {"strict": strict, "last": last}
    assert results.items[0].output["text"] == said


def test_a_right_answer_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"rows\.jsonl, row 1: The right answer 'many' is no number"):
        asked(tmp_path, GSM, [{"q": "?", "a": "many"}], Nearby(answers=["3"]))


def test_several_right_answers_and_words(tmp_path: Path) -> None:
    text = 'kind = "answer"\nprompt = "{q}"\nanswers = "{a}"\n[extract.exact_match]\nalike = "words"\n'
    row: dict[str, object] = {"q": "?", "a": ["The Onion", "bulb"]}
    _, results = asked(tmp_path, text, [row], Nearby(answers=[" an onion. "]))
    assert results.items[0].values == {"exact_match": 1.0}


@given(
    st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: round(x, 3)),
    st.sampled_from(["{}", "so {} it is", "${}.", "= {}\n"]),
)
def test_a_number_is_found_as_it_was_written(number: float, form: str) -> None:
    how = Answer(alike="number", pick="last")
    written = f"{number:,.3f}"
    assert how.right(how.found_in(form.format(written)), [repr(number)])
    assert not how.right(how.found_in(form.format(written)), [repr(number + 1 + abs(number) * 1e-3)])


def test_figures_are_cluster_robust(tmp_path: Path) -> None:
    """Ten passages of eight questions with the same outcome say as much as ten questions."""
    text = 'kind = "choice"\nprompt = "{q}"\nchoices = ["d", "z"]\ngold = "{g}"\ncluster = "{p}"\nmetrics = ["acc"]'
    rows: list[dict[str, object]] = [{"q": "abc", "g": p % 2, "p": p} for p in range(10) for _ in range(8)]
    exam, results = asked(tmp_path, text, rows)
    (measure,) = exam.benchmark.measures(results.items)
    loose = exam.benchmark.measures([replace(one, cluster="") for one in results.items])[0]
    assert measure.chance == 0.5
    assert measure.interval.clusters == 10 and loose.interval.clusters == 80
    width, narrow = (one.interval.high - one.interval.low for one in (measure, loose))
    assert width > 2.5 * narrow


HUMANEVAL = 'kind = "program"\nform = "humaneval"\nprompt = "{prompt}"\nshown = "{s}"\ndelimiter = ""\n'
DOUBLE: dict[str, object] = {
    "prompt": "def double(x):\n", "s": "    return 2 * x\n", "entry_point": "double",
    "test": "def check(f):\n    assert f(2) == 4\n    assert f(-1) == -2\n",
}  # fmt: skip


def test_programs_pass_their_tests_or_say_why_not(tmp_path: Path) -> None:
    for answer, passed, why in (("    return 2 * x\n", 1.0, ""), ("    return x ** 2\n", 0.0, "AssertionError")):
        exam, results = asked(tmp_path, HUMANEVAL, [DOUBLE], Nearby(answers=[answer]))
        (one,) = results.items
        assert one.values == {"pass@1": passed} and why in one.output["why"]
        assert exam.benchmark.measures(results.items)[0].interval.estimate == passed
    with pytest.raises(InputError, match=r"row 1: .*`test`"):
        asked(tmp_path, HUMANEVAL, [{"prompt": "x", "s": "y", "entry_point": "f"}], Nearby(answers=["x"]))


def test_pass_at_k_of_several_programs(tmp_path: Path) -> None:
    """Of five programs for each of two problems 2 and 0 pass: 1 - C(3, 5) / C(5, 5) is 1 for the first."""
    exam, _ = asked(tmp_path, HUMANEVAL, [DOUBLE], Nearby(answers=["    pass\n"]))
    items = [
        ItemResult(f"p:{problem}", repeat=repeat, values={"pass@1": float(problem == 0 and repeat < 2)})
        for problem in range(2)
        for repeat in range(5)
    ]
    measures = {one.metric: one.interval for one in exam.benchmark.measures(items)}
    assert measures["pass@1"].estimate == pytest.approx(0.2) and measures["pass@5"].estimate == pytest.approx(0.5)
    assert measures["pass@1"].n == 2 and set(measures) == {"pass@1", "pass@5"}
    none = [ItemResult(f"p:{i}", repeat=r, values={"pass@1": 0.0}) for i in range(40) for r in range(2)]
    (never,) = exam.benchmark.measures(none)
    assert never.interval.low == 0.0 < 0.05 < never.interval.high < 0.15, "none of forty is not never"
