"""How well a model foretells texts: perplexity and bits per byte, from the log-likelihood of each.

Both are ratios of sums over a corpus: `likelihood_counts` adds up, the others are functions of the sums. Perplexity per
token cannot be compared between tokenizers; per word or per byte it can, and bits per byte best.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from windlass.evaluate.metrics.arrays import as_many, numbers


def likelihood_counts(log_likelihoods: ArrayLike, units: ArrayLike) -> NDArray[np.float64]:
    """Per text its log-likelihood and its length, shape (texts, 2).

    log_likelihoods: natural logarithms of the probability of each whole text, so 0 or less. units: tokens, words or
    UTF-8 bytes of each. Raises `InputError` for none, NaN, a logarithm above 0, or a text without a unit.
    """
    logs, lengths = numbers("log-likelihoods", log_likelihoods, high=0.0), numbers("lengths", units, low=1.0)
    as_many(log_likelihoods=logs, lengths=lengths)
    return np.stack([logs, lengths], axis=1)


def perplexity(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp of the mean loss per unit, of summed counts: shape (..., 2) becomes (...). 1 is best."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.exp(-counts[..., 0] / counts[..., 1])


def bits_per_byte(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean loss per byte in bits, of summed counts whose units are bytes: shape (..., 2) becomes (...)."""
    counts = np.asarray(counts, dtype=np.float64)
    bits: NDArray[np.float64] = -counts[..., 0] / counts[..., 1] / np.log(2)
    return bits
