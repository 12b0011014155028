"""What a reranker learns from: a question, passages that answer it, and passages that only look as if they did.

The wrong passages are those that the search itself finds, since these are what the reranker will have to tell apart
(hard negatives: Karpukhin et al., arXiv 2004.04906, section 3.2; Xiong et al., arXiv 2007.00808). Where nobody asked
anything yet, a collection asks itself: a sentence is a question that the rest of its passage answers (inverse cloze
task: Lee, Chang & Toutanova, arXiv 1906.00300), and so is a heading, or a paper's title, to what stands below it.

Right and wrong passages of a question are shown alike, or the model would learn to tell them by how they are shown.

The rows are for `windlass tune rank`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from windlass.apply.rag.retrieving.step import about
from windlass.apply.rag.sentences import sentence_spans
from windlass.core.protocols import Hit, Index
from windlass.core.values import Citation

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and where its answer stands."""

    question: str
    document: str
    passage: str | None = None
    """The text that answers; None: the passage of the document that the search finds first."""
    bare: bool = False
    """Whether passages are shown without the titles and headings above them, because the question is one."""


def rows(
    index: Index,
    asked: Iterable[Answered],
    *,
    negatives: int = 5,
    depth: int = 30,
    access: Collection[str] = (),
    seed: int = 0,
) -> Iterator[Row]:
    """A row for each question: `query`, `positive`, `negatives`. The wrong passages are drawn from the first `depth` of
    other documents, half of them from the best tenth. A question whose document the search does not find, or to which
    it finds nothing else, has no row: count what comes against what was given."""
    draw = random.Random(seed)
    for one in asked:
        hits = index.search(one.question, depth, access=access)
        right = one.passage or _best(index, hits, one, access)
        wrong = [hit for hit in hits if hit.citation.document != one.document]
        others = [_bare(hit.citation) if one.bare else about(hit) for hit in wrong]
        others = [text for text in dict.fromkeys(others) if text and text != right]
        if right is None or not others:
            continue
        yield {"query": one.question, "positive": [right], "negatives": _drawn(others, negatives, depth, draw)}


def self_asked(passages: Iterable[Citation], *, seed: int = 0, least: int = 6) -> Iterator[Answered]:
    """A question of each passage that has a heading or two sentences: by turns its heading, which is then left out of
    the text, and one of its sentences of at least `least` words, which is left out of it, too."""
    draw = random.Random(seed)
    turn = 0
    for passage in passages:
        sentences = [(a, b) for a, b in sentence_spans(passage.quote) if len(passage.quote[a:b].split()) >= least]
        made = [_by_heading(passage), _by_sentence(passage, sentences, draw)]
        kinds = [one for one in made if one is not None]
        if kinds:
            turn += 1
            yield kinds[turn % len(kinds)]


def _best(index: Index, hits: Sequence[Hit], one: Answered, access: Collection[str]) -> str | None:
    found = [hit for hit in hits if hit.citation.document == one.document]
    found = found or index.search(one.question, 1, {"document": one.document}, access=access)
    return about(found[0]) if found else None


def _drawn(others: Sequence[str], count: int, depth: int, draw: random.Random) -> list[str]:
    """Half of the hardest, and the rest from all: the hardest alone may be right answers that nobody marked."""
    hard = others[: max(depth // 10, 1)]
    chosen = draw.sample(hard, min(len(hard), (count + 1) // 2))
    left = [text for text in others if text not in chosen]
    return chosen + draw.sample(left, min(len(left), count - len(chosen)))


def _by_heading(passage: Citation) -> Answered | None:
    heading, text = _heading(passage), _bare(passage)
    if len(heading.split()) < 2 or not text or heading.casefold() in text.casefold():
        return None
    return Answered(heading, passage.document, text, bare=True)


def _heading(passage: Citation) -> str:
    return passage.heading.rpartition(" > ")[2] or passage.title


def _bare(passage: Citation) -> str:
    """The passage without the heading that it begins with, as abstracts begin with their titles: in a line or sentence
    of its own, whatever its line breaks. "Ada Lovelace" stays where she only begins a sentence."""
    words = r"\s+".join(map(re.escape, _heading(passage).split()))
    found = re.match(rf"[#\s]*{words}[^\S\n]*([.:\n]\s*|$)", passage.quote, re.IGNORECASE) if words else None
    return passage.quote[found.end() :] if found else passage.quote


def _by_sentence(passage: Citation, sentences: Sequence[tuple[int, int]], draw: random.Random) -> Answered | None:
    if len(sentences) < 2:
        return None
    start, stop = draw.choice(sentences)
    rest = f"{passage.quote[:start].rstrip()} {passage.quote[stop:].lstrip()}".strip()
    without = Hit(0, 0.0, replace(passage, quote=rest))
    return Answered(passage.quote[start:stop], passage.document, about(without))
