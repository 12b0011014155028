"""Answers without a language model, read out of passages: the very words that answer, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from windlass.core.protocols import Extracting, Hit
from windlass.core.values import Citation


@dataclass(frozen=True, slots=True)
class Reading:
    answer: Citation
    """Nothing but the words that answer."""
    margin: float
    """As of `core.protocols.Extract`."""


def read_out(reader: Extracting, question: str, hits: Sequence[Hit]) -> list[Reading]:
    """The answers that stand in the passages, the surest first; none where the reader finds none.

    One that stands where two passages overlap is there once.
    """
    passages = [hit.citation for hit in hits]
    found: dict[tuple[str, int, int], Reading] = {}
    extracts = reader.find(question, [passage.quote for passage in passages]) if passages else []
    for passage, extract in zip(passages, extracts, strict=True):
        if extract is None:
            continue
        start = passage.start + extract.start
        place = (passage.document, start, start + len(extract.text))
        if place not in found or found[place].margin < extract.margin:
            answer = replace(passage, start=start, end=place[2], quote=extract.text)
            found[place] = Reading(answer, extract.margin)
    return sorted(found.values(), key=lambda one: -one.margin)
