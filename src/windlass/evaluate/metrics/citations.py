"""How well the sentences of an answer are supported by what they cite: citation recall and precision as in ALCE.

A sentence is supported when all of its citations together entail it. A citation is superfluous when it does not entail
the sentence alone while the others do without it (Gao et al., "Enabling Large Language Models to Generate Text with
Citations", arXiv 2305.14627, section 4). ALCE asks an NLI model for entailment; here it is whatever says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Entails = Callable[[str, str], bool]
"""Whether the first text (what is cited) entails the second (what is said)."""


@dataclass(frozen=True, slots=True)
class Cited:
    sentence: str
    citations: Sequence[str]
    """The texts it cites."""


@dataclass(frozen=True, slots=True)
class CitationScores:
    recall: float
    """Share of the sentences that their citations support; one without citations is not supported."""
    precision: float
    """Share of the citations that belong to a supported sentence and are not superfluous; 0 without citations."""
    sentences: int
    citations: int


def citation_scores(answer: Sequence[Cited], entails: Entails) -> CitationScores:
    """The scores of one answer. An answer that says nothing has 0 of both; whether it should is for abstention."""
    supported = precise = total = 0
    for one in answer:
        total += len(one.citations)
        if not one.citations or not entails("\n".join(one.citations), one.sentence):
            continue
        supported += 1
        precise += sum(_needed(place, one, entails) for place in range(len(one.citations)))
    return CitationScores(
        supported / len(answer) if answer else 0.0, precise / total if total else 0.0, len(answer), total
    )


def _needed(place: int, cited: Cited, entails: Entails) -> bool:
    others = [text for at, text in enumerate(cited.citations) if at != place]
    if not others or entails(cited.citations[place], cited.sentence):
        return True
    return not entails("\n".join(others), cited.sentence)
