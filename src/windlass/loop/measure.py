"""What a variant does with the questions of an exam, for all of them at once.

The assistant's own search and abstention rule are run over whole arrays, which takes seconds where asking one by one
takes minutes. `tests/loop/test_measure.py` holds the two ways equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windlass.apply.assistant import Assistant
from windlass.apply.rag.abstention import evidence
from windlass.evaluate.outcomes import Outcome, outcomes_from_arrays, rank_of
from windlass.evaluate.questions import ExamItem

DEPTH = 50
"""Passages looked at; several of one document count once, so that ten documents need more than ten passages."""


def measure(assistant: Assistant, items: Sequence[ExamItem]) -> list[Outcome]:
    """Where the right document stands for each question, and whether the assistant would abstain."""
    index = assistant.index
    questions = [item.question for item in items]
    vectors = index.embed(questions).vectors
    ranks = [
        rank_of(item, index.documents_of(ranked.rows))
        for item, ranked in zip(items, index.rank_many(questions, DEPTH, vectors=vectors), strict=True)
    ]
    rule = assistant.settings.abstention
    probability = rule.probabilities(evidence(index, questions, vectors=vectors))
    return outcomes_from_arrays(np.array(ranks), probability < rule.threshold, probability)
