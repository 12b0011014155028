"""Answers of tasks scored by a metric's name, or by a function of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from windlass.core.errors import InputError, NotFound
from windlass.loop.prompting.optimising import named
from windlass.loop.prompting.scored import scored_by


@dataclass
class Person:
    name: str
    age: int


def test_metrics_by_name() -> None:
    assert scored_by("rouge-l")("the cat sat", "the cat") == pytest.approx(0.8)
    assert scored_by("exact")(3, 3) == 1 and scored_by("exact")("3", "4") == 0
    assert scored_by("json-f1")(Person("Ada", 36), Person("Ada", 37)) == 0.5
    assert scored_by("edit-distance")("abc", "abd") == -1, "less is better, and a search looks for more"
    assert scored_by("exact")(["a cat", "one cat"], "one cat") == 1, "any of several references"
    assert scored_by("exact")(["a cat", "a dog"], ["a cat", "a dog"]) == 1, "an answer that is a list"
    assert scored_by("exact")(["a cat", "a dog"], ["a dog", "a cat"]) == 0
    assert named(scored_by("F1")) == named(scored_by("f1")) != named(scored_by("exact"))


def test_functions_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def near(wanted, given):\n    return float(abs(wanted - given) < 2)\n")
    assert scored_by(f"{file}:near")(3, 4) == 1
    with pytest.raises(NotFound, match="no function"):
        scored_by(f"{file}:far")


def test_what_scores_no_single_answer_is_refused() -> None:
    for name in ("bleu", "ndcg@10", "fid"):
        with pytest.raises(InputError, match=r"does not score answers one by one\.\nThese do: exact, "):
            scored_by(name)
    with pytest.raises(InputError, match="no metric 'rogue-l'"):
        scored_by("rogue-l")
