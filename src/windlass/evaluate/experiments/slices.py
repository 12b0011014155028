"""The difference slice by slice: an average hides the items on which a candidate got worse.

Many slices are many looks. The intervals hold together (each at a level that Bonferroni's inequality makes sufficient
for all), and the p-values are corrected by Holm, so that of all slices hardly ever one is called worse by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from windlass.evaluate.experiments.pairing import Pair, Paired
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.multiple import holm
from windlass.evaluate.statistics.paired import paired_difference

MOST = 200
"""Slices compared, the largest first: a field with a value of its own for each item is no slice."""
FEWEST = 2


@dataclass(frozen=True, slots=True)
class Slice:
    """Candidate minus incumbent on the primary metric, on the items of one slice."""

    by: str
    """Kind of slice, such as `language`."""
    name: str
    difference: Interval
    """Simultaneous with those of all other slices."""
    p_value: float
    p_holm: float


def compared_slices(pairs: Sequence[Pair], column: Paired, level: float) -> tuple[Slice, ...]:
    """All slices of at least two items, the largest of each kind first. Items without that kind are in none of it."""
    known: Mapping[str, Mapping[str, str]] = {a.item: a.slices for a, _ in pairs}
    members: dict[tuple[str, str], list[int]] = {}
    for at, item in enumerate(column.items):
        for by, name in known[item].items():
            members.setdefault((by, name), []).append(at)
    some = [(key, rows) for key, rows in members.items() if len(rows) >= FEWEST]
    some = sorted(some, key=lambda one: -len(one[1]))[:MOST]
    if not some:
        return ()
    within = 1 - (1 - level) / len(some)
    found = []
    for (by, name), rows in sorted(some, key=lambda one: (one[0][0], -len(one[1]), one[0][1])):
        chosen = np.array(rows)
        clusters = [column.clusters[i] for i in rows]
        pair = paired_difference(column.before[chosen], column.after[chosen], clusters, within)
        found.append(Slice(by, name, pair.difference, pair.p_value, pair.p_value))
    adjusted = holm([one.p_value for one in found]).tolist()
    return tuple(replace(one, p_holm=p) for one, p in zip(found, adjusted))
