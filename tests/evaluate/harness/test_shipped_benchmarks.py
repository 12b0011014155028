"""The benchmarks that come with windlass: each is read, and fits the public data where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from windlass.evaluate.harness.definitions import read_benchmark, shipped
from windlass.evaluate.harness.items import Asking, make_exam
from windlass.evaluate.harness.perplexity import Perplexity
from windlass.evaluate.harness.requests import Continue, Write

DATA = os.environ.get("WINDLASS_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="WINDLASS_DATA names no folder with the public data")

CLASSIC = {
    "arc_challenge", "arc_easy", "bbh", "blimp", "boolq", "commonsense_qa", "copa", "gsm8k", "humaneval", "lambada",
    "math_qa", "mbpp", "mmlu", "openbook_qa", "piqa", "pubmed_qa", "strategy_qa", "triviaqa", "winograd", "winogrande",
    "word_problems",
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
    made = make_exam(benchmark, Path(DATA or ""), Asking(shots=shots))
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
