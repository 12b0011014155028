"""Train and held-out, by cluster: documents that share a file or module share text, and must not be split apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "heldout"]


def split_clusters(clusters: Iterable[str], heldout: float) -> dict[str, Split]:
    """Assigns each cluster by a hash of its name, so that adding documents moves none of the others.

    `heldout` (0 to 1) is the expected share of clusters. With two clusters or more, and `heldout` above 0, neither
    side stays empty: the cluster whose hash lies nearest to the border crosses it.
    """
    places = sorted((_place(cluster), cluster) for cluster in set(clusters))
    split: dict[str, Split] = {cluster: "heldout" if place < heldout else "train" for place, cluster in places}
    if heldout > 0 and len(places) > 1:
        if places[0][0] >= heldout:
            split[places[0][1]] = "heldout"
        elif places[-1][0] < heldout:
            split[places[-1][1]] = "train"
    return split


def _place(cluster: str) -> float:
    digest = hashlib.sha256(b"windlass split\0" + cluster.encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
