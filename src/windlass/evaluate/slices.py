"""A metric slice by slice: an average hides the questions on which a system fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from windlass.core.errors import InputError
from windlass.evaluate.statistics.checks import Clusters, finite
from windlass.evaluate.statistics.intervals import Interval, mean_interval

ALL = "all"


def by_slice(
    values: ArrayLike, slices: Sequence[str | Sequence[str]], clusters: Clusters | None = None, level: float = 0.95
) -> Mapping[str, Interval]:
    """The mean of `values` with its interval, over all items and then over each slice, the largest first.

    slices: per item the slice it belongs to, or several. A slice is never left out for being small: its interval says
    how little is known about it.
    """
    scores = finite(values)
    if len(slices) != scores.size:
        raise InputError(f"There are {scores.size} values but {len(slices)} items with slices.")
    members: dict[str, list[int]] = {}
    for item, named in enumerate(slices):
        for name in dict.fromkeys([named] if isinstance(named, str) else named):
            members.setdefault(name, []).append(item)
    if ALL in members:
        raise InputError(f"A slice is called '{ALL}'.", "That is the name of all items together.")
    labels = None if clusters is None else np.asarray(clusters, dtype=object)
    found = {ALL: mean_interval(scores, clusters, level)}
    for name in sorted(members, key=lambda name: (-len(members[name]), name)):
        chosen = members[name]
        found[name] = mean_interval(scores[chosen], None if labels is None else list(labels[chosen]), level)
    return found
