"""chrF and chrF++: the F-score of character n-grams, and of words besides.

As with BLEU, counts add up over a corpus (`chrf_counts`) and the score is a function of the sums (`chrf`). Of several
references the one with the best score of its own counts. Scores run from 0 to 100 and are those of sacrebleu.

Source: Popovic, "chrF", WMT 2015; "chrF++: words helping character n-grams", WMT 2017.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.overlap import Ints, Overlap, Symbols, numbered, overlaps
from windlass.evaluate.metrics.text.texts import References, paired

_TINY = 1e-16


def chrf_counts(
    found: Sequence[str],
    right: References,
    *,
    characters: int = 6,
    words: int = 0,
    beta: float = 2.0,
    lowercase: bool = False,
    whitespace: bool = False,
    smoothed: bool = False,
) -> NDArray[np.float64]:
    """Per item three counts of each order, shape (items, 3 * (characters + words)): n-grams of the text, of the
    reference, and of both. They add up over a corpus.

    characters, words: the longest n-grams; `words=2` makes it chrF++. whitespace: spaces are characters too.
    smoothed: choose among references by the smoothed score (see `chrf`).

    Raises `InputError` as `paired`, and for orders below 1 (of words: below 0).
    """
    if characters < 1 or words < 0:
        raise InputError(f"n-grams of {characters} characters and {words} words are none.", "chrF++ has 6 and 2.")
    pairs = paired(found, right)
    if lowercase:
        pairs = [(text.lower(), [one.lower() for one in some]) for text, some in pairs]
    owner = np.repeat(np.arange(len(pairs)), [len(some) for _, some in pairs])
    texts, references = [text for text, _ in pairs], [one for _, some in pairs for one in some]
    counted = overlaps(_points(texts, whitespace), _points(references, whitespace), owner, characters)
    if words:
        numbers: dict[str, int] = {}
        ours, theirs = (numbered(map(_words, some), numbers) for some in (texts, references))
        counted += overlaps(ours, theirs, owner, words)
    columns = [column for one in counted for column in _columns(one, owner)]
    counts = np.stack(columns, axis=1).astype(np.float64)
    order = np.lexsort((np.arange(owner.size), -chrf(counts, beta=beta, smoothed=smoothed), owner))
    best: NDArray[np.float64] = counts[order[np.unique(owner[order], return_index=True)[1]]]
    return best


def chrf(counts: NDArray[np.float64], *, beta: float = 2.0, smoothed: bool = False) -> NDArray[np.float64]:
    """The score of summed counts: shape (..., 3 * orders) becomes (...).

    Precision and recall are averaged over the orders that both sides have, and recall weighs beta times as much.
    smoothed: the F-scores of all orders are averaged instead, as chrF++.py, NLTK and Moses do.
    """
    counts = np.asarray(counts, dtype=np.float64)
    found, wanted, shared = (counts[..., place::3] for place in range(3))
    precision = np.where(found > 0, shared / np.maximum(found, 1), _TINY)
    recall = np.where(wanted > 0, shared / np.maximum(wanted, 1), _TINY)
    if smoothed:
        each = _f_score(precision, recall, beta)
        each = np.where(beta**2 * precision + recall > 0, each, _TINY)
        mean: NDArray[np.float64] = 100.0 * each.mean(axis=-1)
        return mean
    both = (found > 0) & (wanted > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    return 100.0 * _f_score((precision * both).sum(axis=-1) / orders, (recall * both).sum(axis=-1) / orders, beta)


def sentence_chrf(found: Sequence[str], right: References, *, words: int = 0) -> NDArray[np.float64]:
    """Per item its own score. Raises `InputError` as `chrf_counts`."""
    return chrf(chrf_counts(found, right, words=words))


def _f_score(precision: NDArray[np.float64], recall: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    below = beta**2 * precision + recall
    return np.where(below > 0, (1 + beta**2) * precision * recall / np.where(below > 0, below, 1.0), 0.0)


def _columns(one: Overlap, owner: Ints) -> tuple[Ints, Ints, Ints]:
    # Where a reference is too short for an order, what the text has of it is not held against it.
    return np.where(one.wanted > 0, one.found[owner], 0), one.wanted, one.shared


def _points(texts: Sequence[str], whitespace: bool) -> Symbols:
    plain = texts if whitespace else ["".join(text.split()) for text in texts]
    points = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return Symbols(points.astype(np.int64), np.fromiter(map(len, plain), np.int64, len(plain)))


def _words(text: str) -> list[str]:
    """Words with a mark at one end apart from it, at the back if at both, as chrF++.py has it."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in string.punctuation:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in string.punctuation:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found
