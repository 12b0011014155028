"""Two one-sided tests: is the difference smaller than a margin, in either direction?

A test that finds no difference has not shown that there is none. Equivalence is shown when both "lower by the margin or
more" and "higher by the margin or more" are refuted, that is, when the interval of level 1 - 2 alpha lies between the
two margins (Schuirmann, "A comparison of the two one-sided tests procedure and the power approach", Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987).
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters
from windlass.evaluate.statistics.intervals import exceeds_p, mean_error
from windlass.evaluate.statistics.paired import differences


def equivalence_p(incumbent: ArrayLike, candidate: ArrayLike, margin: float, clusters: Clusters | None = None) -> float:
    """One-sided p-value of "the means differ by `margin` or more", over the same items; cluster-robust with
    clusters."""
    if not 0 < margin < math.inf:
        raise InputError(f"Equivalence needs a margin above 0, not {margin}.")
    found = mean_error(differences(incumbent, candidate), clusters)
    return max(exceeds_p(found, -margin), 1.0 - exceeds_p(found, margin))
