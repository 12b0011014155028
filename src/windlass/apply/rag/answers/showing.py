"""What stands below an answer: where each quotation stands, and what contradicts it."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.apply.rag.answers.disagreement import Disagreement
from windlass.apply.rag.answers.places import link
from windlass.core.values import Citation


def with_others(citations: Sequence[Citation], told: Sequence[Disagreement]) -> list[Citation]:
    """Citations, and behind them the sentences that contradict one of them, each once."""
    cited = list(citations)
    for one in told:
        cited += [side for side in (one.first, one.second) if _number(side, cited) is None]
    return cited


def _number(sentence: Citation, cited: Sequence[Citation]) -> int | None:
    """Of the first citation that stands in the sentence, from 1."""
    for number, one in enumerate(cited, start=1):
        if one.document == sentence.document and one.start < sentence.end and sentence.start < one.end:
            return number
    return None


def contradiction(told: Disagreement, cited: Sequence[Citation]) -> str:
    first, second = (
        f"[{_number(side, cited)}] says “{' '.join(side.quote.split())}”" for side in (told.first, told.second)
    )
    return f"The sources disagree: {first}, but {second} ({told.what})."


def sources(citations: Sequence[Citation]) -> str:
    """The list of sources below an answer, one line for each number."""
    lines = []
    for number, c in enumerate(citations, start=1):
        place = " > ".join(dict.fromkeys(name for name in (c.title, c.heading) if name))
        part = f", {c.place}" if c.place else ""
        where = f"{c.source or c.document}{part}, characters {c.start}-{c.end}"
        address = f" {link(c)}" if c.url else ""
        lines.append(f"[{number}] {place} ({where}){address}" if place else f"[{number}] {where}{address}")
    return "Sources:\n" + "\n".join(lines)
