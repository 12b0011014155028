"""Train and held-out, by cluster: documents that share a file or module share text, and must not be split apart.

A hash of its name gives each cluster a place in [0, 1); those below the share that is held out are. So adding documents
moves none of the others, and nothing but two names has to be remembered.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal

Split = Literal["train", "heldout"]


def place(cluster: str, seed: int = 0) -> float:
    """Where a cluster stands in [0, 1)."""
    salt = f"windlass split {seed}\0" if seed else "windlass split\0"
    digest = hashlib.sha256(salt.encode() + cluster.encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def border(heldout: float, lowest: float, highest: float) -> float:
    """The place below which clusters are held out: `heldout` itself, their expected share, unless a side were empty.

    `lowest` and `highest` are the least and the greatest place of all clusters. With two clusters or more, and
    `heldout` above 0, the cluster nearest to the border crosses it rather than leave a side without any.
    """
    if heldout > 0 and lowest < highest:
        if lowest >= heldout:
            return math.nextafter(lowest, 1)
        if highest < heldout:
            return highest
    return heldout
