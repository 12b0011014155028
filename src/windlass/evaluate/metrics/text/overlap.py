"""How many n-grams texts share with their references, counted for a whole corpus at once.

Texts are rows of numbers: words or characters that were given numbers before. An n-gram is known by the number of its
first n-1 symbols and that of its last one, so each order needs one sort of the corpus and no tuple is ever made. The
counts are exact; nothing is hashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Of one order."""

    found: Ints
    """Shape (items,): n-grams of each text."""
    wanted: Ints
    """Shape (references,): n-grams of each reference."""
    shared: Ints
    """Shape (references,): n-grams that the reference and its text share, each counted as often as both have it."""
    clipped: Ints
    """Shape (items,): n-grams of the text that count, each at most as often as the reference that has it most."""


class Symbols(NamedTuple):
    """Texts one after the other."""

    values: Ints
    """Shape (symbols of all texts,)."""
    lengths: Ints
    """Shape (texts,)."""


def numbered(texts: Iterable[Sequence[str]], numbers: dict[str, int]) -> Symbols:
    """Words as numbers; `numbers` is what is known already, and grows."""
    rows = list(texts)
    flat = list(chain.from_iterable(rows))
    for word in dict.fromkeys(flat):
        numbers.setdefault(word, len(numbers))
    return Symbols(
        np.fromiter(map(numbers.__getitem__, flat), np.int64, len(flat)),
        np.fromiter(map(len, rows), np.int64, len(rows)),
    )


def overlaps(found: Symbols, references: Symbols, owner: Ints, orders: int) -> list[Overlap]:
    """The overlap of each order from 1 to `orders`. owner[r]: the item whose reference r is."""
    lengths = np.concatenate([found.lengths, references.lengths])
    symbols = np.concatenate([found.values, references.values])
    whose = np.repeat(np.arange(lengths.size), lengths)
    after = np.arange(symbols.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    left = np.repeat(lengths, lengths) - after
    """How many symbols of its text stand from each place on: an n-gram begins where there are n."""
    kinds = int(symbols.max()) + 1 if symbols.size else 1
    grams = symbols
    made = []
    for order in range(1, orders + 1):
        begins = np.flatnonzero(left >= order)
        if order > 1:
            known = np.zeros(symbols.size, dtype=np.int64)
            known[begins] = np.unique(grams[begins] * kinds + symbols[begins + order - 1], return_inverse=True)[1]
            grams = known
        made.append(_overlap(grams[begins], whose[begins], found.lengths.size, owner))
    return made


def _overlap(grams: Ints, whose: Ints, items: int, owner: Ints) -> Overlap:
    kinds = int(grams.max()) + 1 if grams.size else 1
    texts = np.bincount(whose, minlength=items + owner.size)
    ours = whose < items
    have, times = np.unique(whose[ours] * kinds + grams[ours], return_counts=True)
    theirs, wanted = np.unique((whose[~ours] - items) * kinds + grams[~ours], return_counts=True)
    reference, gram = np.divmod(theirs, kinds)
    key = owner[reference] * kinds + gram
    place = np.searchsorted(have, key)
    place[place == have.size] = 0
    hit = have[place] == key if have.size else np.zeros(key.size, dtype=bool)
    place, reference, wanted = place[hit], reference[hit], wanted[hit]
    shared = np.bincount(reference, weights=np.minimum(times[place], wanted), minlength=owner.size)
    most = np.zeros(have.size, dtype=np.int64)
    np.maximum.at(most, place, wanted)
    clipped = np.bincount(have // kinds, weights=np.minimum(times, most), minlength=items)
    return Overlap(texts[:items], texts[items:], shared.astype(np.int64), clipped.astype(np.int64))
