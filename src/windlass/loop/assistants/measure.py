"""What a variant does with the questions of an exam, for all of them at once.

The assistant's own search and abstention rule are run over whole arrays, which takes seconds where asking one by one
takes minutes. `tests/loop/turning/test_one_recipe.py` holds the two ways equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from windlass.apply.assistant import Assistant
from windlass.apply.rag.answers.abstention import evidence
from windlass.apply.rag.indexes.search import HybridIndex
from windlass.apply.rag.indexes.searchable import one_version
from windlass.core.errors import InputError
from windlass.evaluate.exam.items import ExamItem
from windlass.evaluate.exam.outcomes import Outcome, outcomes_from_arrays, rank_of

DEPTH = 50
"""Passages looked at; several of one document count once, so that ten documents need more than ten passages."""


def measure(assistant: Assistant, items: Sequence[ExamItem]) -> list[Outcome]:
    """Where the right document stands for each question, and whether the assistant would abstain.

    A reader has to read for each of them, which takes some seconds a hundred questions, and so has a reranker; a search
    with a language model's help asks it for each of them.
    """
    with one_version(assistant.index) as index:
        if not isinstance(index, HybridIndex):
            raise InputError("An exam is asked of an embedded index.", "Take a snapshot of this one.")
        return _measured(assistant, index, items)


def _measured(assistant: Assistant, index: HybridIndex, items: Sequence[ExamItem]) -> list[Outcome]:
    questions = [item.question for item in items]
    vectors = index.embed(questions).vectors
    search = assistant.searched(index)
    if search is index:
        found = (index.documents_of(ranked.rows) for ranked in index.rank_many(questions, DEPTH, vectors=vectors))
    else:  # what the steps of a search do is done question by question
        hits = (
            search.search(question, DEPTH, vector=vector) for question, vector in zip(questions, vectors, strict=True)
        )
        found = ([hit.citation.document for hit in some] for some in hits)
    ranks = [rank_of(item, documents) for item, documents in zip(items, found, strict=True)]
    if assistant.reader is not None:
        threshold = assistant.settings.reading.threshold
        read = [assistant.readings(assistant.find(question)) for question in questions]
        probability = np.array([some[0].probability if some else 0.0 for some in read])
        none = np.array([not some for some in read])
        return outcomes_from_arrays(np.array(ranks), none | (probability < threshold), probability)
    rule = assistant.settings.abstention
    probability = rule.probabilities(evidence(index, questions, vectors=vectors))
    return outcomes_from_arrays(np.array(ranks), probability < rule.threshold, probability)
