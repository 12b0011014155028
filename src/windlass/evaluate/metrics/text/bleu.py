"""BLEU: the share of a text's n-grams that its references have, and a penalty for texts that are too short.

BLEU belongs to a corpus. Its counts add up over items (`bleu_counts`), the score is a function of the sums (`bleu`), so
a bootstrap resamples rows of counts and reads no text again. The mean of sentences' scores is another number
(`sentence_bleu`). Scores run from 0 to 100 and are those of sacrebleu.

Source: Papineni et al., ACL 2002; Post, arXiv 1804.08771; smoothing by Chen & Cherry, WMT 2014.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from windlass.core.errors import InputError
from windlass.evaluate.metrics.text.overlap import numbered, overlaps
from windlass.evaluate.metrics.text.texts import References, paired
from windlass.evaluate.metrics.text.tokens import tokenised

Smoothing = Literal["exp", "floor", "add-k", "none"]
_ORDERS = 4
_DEFAULTS = {"exp": 0.0, "floor": 0.1, "add-k": 1.0, "none": 0.0}


def bleu_counts(
    found: Sequence[str], right: References, *, tokeniser: str = "13a", lowercase: bool = False
) -> NDArray[np.float64]:
    """Per item 10 counts that add up over a corpus: tokens of the text, tokens of the reference nearest in length (the
    shorter of two that are equally near), then the n-grams that count and all n-grams, for n of 1 to 4.

    Raises `InputError` as `paired`, and for a tokeniser that is not known.
    """
    pairs = paired(found, right)
    references = [one for _, some in pairs for one in some]
    owner = np.repeat(np.arange(len(pairs)), [len(some) for _, some in pairs])
    numbers: dict[str, int] = {}
    ours = numbered(tokenised([text for text, _ in pairs], tokeniser, lowercase), numbers)
    theirs = numbered(tokenised(references, tokeniser, lowercase), numbers)
    counted = overlaps(ours, theirs, owner, _ORDERS)
    lengths = counted[0].found
    # The nearest length: all references in order of their item, then of distance, then of length; the first counts.
    distance = np.abs(counted[0].wanted - lengths[owner])
    order = np.lexsort((counted[0].wanted, distance, owner))
    first = order[np.unique(owner[order], return_index=True)[1]]
    columns = [lengths, counted[0].wanted[first], *(one.clipped for one in counted), *(one.found for one in counted)]
    return np.stack(columns, axis=1).astype(np.float64)


def bleu(
    counts: NDArray[np.float64],
    *,
    smoothing: Smoothing = "exp",
    value: float | None = None,
    effective_order: bool = False,
) -> NDArray[np.float64]:
    """The score of summed counts: shape (..., 10) becomes (...).

    smoothing: what stands for a precision of 0: "exp" 1/2, 1/4, ... of one n-gram (the default of sacrebleu), "floor"
    `value` n-grams (0.1), "add-k" `value` (1) more of both counts from n = 2 on, "none" nothing, and the score is 0.
    effective_order: leave out the orders for which the text is too short, as a single sentence needs it.
    """
    if smoothing not in _DEFAULTS:
        raise InputError(f"There is no smoothing '{smoothing}'.", f"Known are {', '.join(_DEFAULTS)}.")
    k = _DEFAULTS[smoothing] if value is None else value
    counts = np.asarray(counts, dtype=np.float64)
    length, reference = counts[..., 0], counts[..., 1]
    right, every = counts[..., 2 : 2 + _ORDERS].copy(), counts[..., 2 + _ORDERS :].copy()
    some = right.any(axis=-1)
    if smoothing == "add-k":
        right[..., 1:] += k
        every[..., 1:] += k
    counted = np.logical_and.accumulate(every > 0, axis=-1)
    zero = counted & (right == 0)
    if smoothing == "exp":
        right = np.where(zero, 0.5 ** np.cumsum(zero, axis=-1), right)
    elif smoothing == "floor":
        right = np.where(zero, k, right)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(counted, np.log(right) - np.log(every), 0.0 if effective_order else -np.inf)
        orders = counted.sum(axis=-1) if effective_order else _ORDERS
        mean = logs.sum(axis=-1) / np.maximum(orders, 1)
        penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        return np.where(some, 100.0 * penalty * np.exp(mean), 0.0)


def sentence_bleu(
    found: Sequence[str],
    right: References,
    *,
    tokeniser: str = "13a",
    lowercase: bool = False,
    smoothing: Smoothing = "exp",
    value: float | None = None,
) -> NDArray[np.float64]:
    """Per item its own score, with the orders that it is long enough for. Raises `InputError` as `bleu_counts`."""
    counts = bleu_counts(found, right, tokeniser=tokeniser, lowercase=lowercase)
    return bleu(counts, smoothing=smoothing, value=value, effective_order=True)
