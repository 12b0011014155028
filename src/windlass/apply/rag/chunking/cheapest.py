"""The cheapest way to cut a text at places that each have their price, by dynamic programming.

Passages far from the target size cost too, and so does a passage that reaches across the start of a section.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from windlass.apply.rag.chunking.settings import ChunkSettings

ACROSS = 0.6
"""Price of a section that starts inside a passage: only tiny sections are joined with their neighbours."""
_CROWD = 64
"""So many places within half of the largest passage are more than a good cut needs."""


@dataclass(frozen=True, slots=True)
class Place:
    at: int
    price: float
    section: bool = False
    """A section starts here."""
    above: str = ""
    """What must be said again above a passage that starts here."""


def cheapest(text: str, places: Sequence[Place], settings: ChunkSettings, most_pieces: int) -> list[int]:
    """Offsets of the cheapest cut from the first place to the last. A passage has at most the settings' `limit` of
    characters and `most_pieces`, unless there is no place inside it. Time is linear in the text."""
    places = _thinned(places, settings)
    pieces = _pieces_at(text, [place.at for place in places])
    room = [most_pieces - pieces_in(place.above) if place.above else most_pieces for place in places]
    best = [0.0]
    came_from = [0]
    across = 0
    crossed = [0]  # sections that started up to and including each place
    for place in places[1:]:
        across += place.section
        crossed.append(across)
    for j in range(1, len(places)):
        least, source = float("inf"), j - 1
        for i in range(j - 1, -1, -1):
            size = places[j].at - places[i].at
            if i < j - 1 and (size > settings.limit or pieces[j] - pieces[i] > room[i]):
                break
            joined = crossed[j] - crossed[i] - places[j].section
            cost = best[i] + places[i].price + _size_price(size, settings) + ACROSS * joined
            if cost < least:
                least, source = cost, i
        best.append(least)
        came_from.append(source)
    cuts = [len(places) - 1]
    while cuts[-1]:
        cuts.append(came_from[cuts[-1]])
    return [places[i].at for i in reversed(cuts)]


def _size_price(size: int, settings: ChunkSettings) -> float:
    if size < settings.target:
        return float((1 - size / settings.target) ** 2)
    return float(0.3 * ((size - settings.target) / (settings.limit - settings.target)) ** 2)


def _thinned(places: Sequence[Place], settings: ChunkSettings) -> Sequence[Place]:
    """Where places crowd, as between sentences of two letters, the cheapest few of them: each is compared with all
    that a passage could reach, so that they would cost their square."""
    near = settings.limit // 2
    if not any(b.at - a.at < near for a, b in zip(places, places[_CROWD:])):
        return places
    width = max(near // _CROWD, 1)
    kept = [places[0]]
    for place in places[1:-1]:
        if len(kept) == 1 or place.at // width != kept[-1].at // width or kept[-1].section:
            kept.append(place)
        elif place.section or place.price < kept[-1].price:
            kept[-1] = place
    return [*kept, places[-1]]


_PIECE = re.compile(r"[A-Za-z]+|[0-9]+|[^\sA-Za-z0-9]")


def pieces_in(text: str, start: int = 0, end: int | None = None) -> int:
    """Estimated word pieces: BERT's tokenizer splits at punctuation, rare words and digits.

    Measured on technical pages and Python source: under 1 % of the passages are longer than MiniLM reads."""
    total = 0
    for match in _PIECE.finditer(text, start, len(text) if end is None else end):
        length = match.end() - match.start()
        total += 1 + (length - 1) // (5 if text[match.start()].isalpha() else 3)
    return total


def _pieces_at(text: str, offsets: Sequence[int]) -> list[int]:
    """Before each offset, from the first one on."""
    total, counts = 0, [0]
    for left, right in pairwise(offsets):
        total += pieces_in(text, left, right)
        counts.append(total)
    return counts
