"""Mixing: how often each source is seen in training, so that it takes the share of the text that its weight asks for.

One pass over the mix has as many bytes as the corpus has to train on. A source of weight w (of a total of 1) is seen
w * total / its own bytes times in it: less than once where it is large and its weight small. What is repeated or left
out is decided by a hash of the document's id, so that adding documents changes little. The numbers stand in the report
of the corpus; `reading.training_text` follows them. Up to four times is almost as good as new text (Muennighoff et al.
2023, "Scaling Data-Constrained Language Models").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from windlass.core.errors import InputError

MANY = 4
"""Times from which on seeing a text again teaches clearly less than new text would."""


def mixture(weights: Mapping[str, float | None], sizes: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """By part of the corpus: its training bytes, its share of the mix, and how often it is seen in one pass.

    `sizes` holds UTF-8 bytes to train on. Without weights every part is seen once. Raises `InputError` for a part that
    has a weight but nothing to train on.
    """
    total, whole = sum(sizes.values()), sum(weight or 0.0 for weight in weights.values())
    found = {}
    for part, weight in weights.items():
        size = sizes.get(part, 0)
        if weight is not None and weight > 0 and not size:
            raise InputError(
                f"The source '{part}' has weight {weight:g}, but nothing of it is left to train on.",
                "Look at what was dropped of it, or take it out of the mix.",
            )
        share = size / total if weight is None else weight / whole
        epochs = 1.0 if weight is None else share * total / size if size else 0.0
        found[part] = {"train_bytes": size, "share": share, "epochs": epochs}
    return found


def copies(identifier: str, epochs: float, seed: int = 0) -> int:
    """How often a document is seen in one pass over a mix that sees its source `epochs` times."""
    digest = hashlib.sha256(f"windlass mix {seed}\0{identifier}".encode()).digest()
    return int(epochs) + (int.from_bytes(digest[:7], "big") / 2**56 < epochs % 1)
