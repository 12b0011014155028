"""Answers without a language model, read out of passages: the very words that answer, and where they stand.

A reader compares an answer with silence in one passage at a time, and a search compares passages; neither knows which
of several passages holds the answer, or whether any does. One rule puts the two together: it turns what both say of an
answer into the probability that it is right, which orders the answers and decides whether any is given (as with a
reader over retrieved passages in Chen et al., arXiv 1704.00051, with a calibrated end as in Kamath et al., arXiv
2006.09462).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from windlass.apply.rag.answers.abstention import balanced_logistic, best_threshold
from windlass.core.errors import InputError
from windlass.core.protocols import Extracting, Hit
from windlass.core.values import Citation

EVIDENCE = ("margin", "dense", "rank", "fit")
"""The reader's margin over silence, in logits; the cosine of question and passage; 1 / rank of the passage; and how
well the best passages fit the question at all, as the logit of the rule of `rag.answers.abstention`."""


@dataclass(frozen=True, slots=True)
class ReadingRule:
    """`P(right) = 1 / (1 + exp(-(bias + weights . evidence)))`; below `threshold` the assistant abstains.

    The defaults were fitted for a reader of the recipe `reader` by `bench.answering`, on questions of QED that it was
    not trained on, and look at margin and rank alone, which mean the same in other documents. Yours differ all the
    same, and so may your reader: `windlass eval live --risk 0.1` fits your own.
    """

    bias: float = -2.132378
    weights: tuple[float, ...] = (0.145183, 0.0, 3.286271, 0.0)
    threshold: float = 0.880691

    def __post_init__(self) -> None:
        if len(self.weights) != len(EVIDENCE) or not 0 <= self.threshold <= 1:
            raise InputError(
                f"A reading rule has {len(EVIDENCE)} weights ({', '.join(EVIDENCE)}) and 0 <= threshold <= 1."
            )

    def probabilities(self, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape (answers, 4) -> (answers,)."""
        logits = self.bias + evidence @ np.asarray(self.weights)
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -50, 50))))


@dataclass(frozen=True, slots=True)
class Reading:
    answer: Citation
    """Nothing but the words that answer."""
    margin: float
    """As of `core.protocols.Extract`."""
    evidence: tuple[float, ...]
    """As of `EVIDENCE`."""
    probability: float
    """That it is right, by the rule."""


def read_out(
    reader: Extracting,
    question: str,
    hits: Sequence[Hit],
    rule: ReadingRule,
    fit: float,
    texts: Sequence[str] | None = None,
) -> list[Reading]:
    """The answers that stand in the passages, the likeliest first; none where the reader finds none.

    `fit`: the probability that the documents hold the answer, by the search alone. `texts`: what the reader gets of
    each passage, every character in its place. An answer that stands where two passages overlap is there once.
    """
    passages = [hit.citation for hit in hits]
    texts = texts or [passage.quote for passage in passages]
    found: dict[tuple[str, int, int], Reading] = {}
    extracts = reader.find(question, texts) if passages else []
    logit = float(np.log(np.clip(fit, 1e-6, 1 - 1e-6) / (1 - np.clip(fit, 1e-6, 1 - 1e-6))))
    for rank, (hit, extract) in enumerate(zip(hits, extracts, strict=True), start=1):
        if extract is None or not extract.text.strip():
            continue
        start = hit.citation.start + extract.start
        place = (hit.citation.document, start, start + len(extract.text))
        evidence = (extract.margin, hit.parts.get("dense", 0.0), 1 / rank, logit)
        probability = float(rule.probabilities(np.array([evidence]))[0])
        if place not in found or found[place].probability < probability:
            answer = replace(hit.citation, start=start, end=place[2], quote=extract.text)
            found[place] = Reading(answer, extract.margin, evidence, probability)
    return sorted(found.values(), key=lambda one: -one.probability)


def fit_reading(
    readings: Sequence[Sequence[Reading]], right: Sequence[Sequence[bool]], only: Sequence[str] = EVIDENCE
) -> ReadingRule:
    """The rule for these questions: per question what was read, and whether each of it is right. The threshold is the
    best for telling right from wrong among the best readings.

    `only`: what the rule looks at. Cosines mean something else in other documents, margins and ranks hardly do. Raises
    `InputError` unless both kinds occur.
    """
    seen = [EVIDENCE.index(name) for name in only]
    evidence = [one.evidence for some in readings for one in some]
    flags = [flag for some in right for flag in some]
    if len(set(flags)) < 2 or len(evidence) != len(flags):
        raise InputError(
            "A reading rule is learnt from answers that are right and others that are not; one kind is missing.",
            "Add questions whose answer stands in the documents, and some whose answer does not.",
        )
    bias, weights = balanced_logistic(np.array(evidence)[:, seen], np.array(flags))
    rule = ReadingRule(bias, tuple(dict(zip(seen, weights)).get(place, 0.0) for place in range(len(EVIDENCE))))
    best = [
        max(zip(rule.probabilities(np.array([one.evidence for one in some])).tolist(), flags_of))
        for some, flags_of in zip(readings, right, strict=True)
        if some
    ]
    told = np.array([flag for _, flag in best])
    if told.all() or not told.any():
        return rule
    return replace(rule, threshold=best_threshold(np.array([p for p, _ in best]), told))
