"""Which questions systems learn from, which set thresholds, and which compare; and which are to have no answer.

Three splits, disjoint by cluster: `harvest` is what users ask and systems learn from, `dev` sets thresholds, `test`
compares systems and is seen by neither. Where a cluster goes depends on its name and the seed only, so a corpus that
grows moves no file from one split to another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

from windlass.evaluate.exam.items import SPLITS, Split

SHARES: Mapping[Split, float] = {"harvest": 0.40, "dev": 0.15, "test": 0.45}

_FEW_CLUSTERS = 100
"""With fewer clusters than this, hashes alone would leave a split short: they are dealt out in turn instead."""
_WITHHELD_CLUSTERS = 20
"""From about so many clusters of a split, or more, its unanswerable questions come where the files allow it."""


def chance(name: str, seed: int, purpose: str = "") -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed}\n{purpose}\n{name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def assign(sizes: Mapping[str, int], seed: int) -> dict[str, Split]:
    """The split of each cluster. `sizes`: questions of each."""
    order = sorted(sizes, key=lambda cluster: chance(cluster, seed, "split"))
    if len(order) >= _FEW_CLUSTERS:
        places = {cluster: chance(cluster, seed, "split") for cluster in order}
    else:
        # The golden ratio's multiples spread evenly over [0, 1) however few they are; 0.7 begins with the test split.
        places = {cluster: (0.7 + i * 0.6180339887) % 1.0 for i, cluster in enumerate(order)}
    bounds: list[tuple[float, Split]] = []
    for split in SPLITS:
        bounds.append((SHARES[split] + (bounds[-1][0] if bounds else 0.0), split))
    return {
        cluster: next((split for bound, split in bounds if place < bound), "test") for cluster, place in places.items()
    }


def withhold(
    sizes: Mapping[str, int], splits: Mapping[str, Split], share: float, keep: Collection[str], seed: int
) -> frozenset[str]:
    """Clusters to withhold: in every split about `share` of its questions.

    Small clusters come first: the same number of questions from more files says more about abstention, and fewer
    documents go missing from the index. A cluster that would overshoot the share by as much again is left alone.
    """
    chosen: set[str] = set()
    for split in SPLITS:
        wanted = share * sum(size for cluster, size in sizes.items() if splits[cluster] == split)
        small = max(1.0, wanted / _WITHHELD_CLUSTERS)
        inside = sorted(
            (cluster for cluster in sizes if splits[cluster] == split),
            key=lambda cluster: (sizes[cluster] > small, chance(cluster, seed, "withhold")),
        )
        have = 0
        for cluster in inside:
            if cluster not in keep and have < wanted and have + sizes[cluster] <= 2 * wanted:
                chosen.add(cluster)
                have += sizes[cluster]
    return frozenset(chosen)
