"""Examples chosen by similarity: those of a pool whose inputs are nearest to the question's (Liu et al. 2021,
https://arxiv.org/abs/2101.06804).

What they change, they change after the instructions: only these stay in a provider's cache from call to call.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from windlass.apply.tasks.prompt import Example
from windlass.core.errors import InputError
from windlass.core.files import sha256_json
from windlass.core.protocols import Embedder


class Similar:
    """`@task(examples=Similar(pool, embedder))`: for each call its `k` nearest examples, the nearest last.

    The pool is embedded once, when first asked; with a `CachedEmbedder` not even that, the next time. Of equally near
    ones the earlier in the pool is taken, so the same call is always shown the same. Safe to share between threads.
    Raises `InputError` for an empty pool.
    """

    def __init__(self, pool: Sequence[Example], embedder: Embedder, k: int = 4) -> None:
        if not pool or k < 1:
            raise InputError(
                f"{k} examples cannot be chosen from a pool of {len(pool)}.", "Give a pool, and k above 0."
            )
        self.pool = tuple(pool)
        self.k = min(k, len(self.pool))
        self._embedder = embedder
        self._lock = threading.Lock()
        self._vectors: NDArray[np.float32] | None = None

    @property
    def digest(self) -> str:
        """Of all that decides what is chosen."""
        rows = [[_text(e.inputs), repr(e.answer), e.reasoning] for e in self.pool]
        return sha256_json(["similar", 1, self._embedder.digest, self.k, rows])

    def __call__(self, inputs: Mapping[str, Any]) -> list[Example]:
        question = self._embedder.embed([_text(inputs)], "passage").vectors[0]
        # Rounded, or the last bits of a product, which differ from machine to machine, would break ties.
        distances = -np.round(self._index() @ question, 5)
        nearest = np.argsort(distances, kind="stable")[: self.k]
        return [self.pool[i] for i in reversed(nearest.tolist())]

    def _index(self) -> NDArray[np.float32]:
        """Shape (pool, dimension)."""
        with self._lock:
            if self._vectors is None:
                self._vectors = self._embedder.embed([_text(e.inputs) for e in self.pool], "passage").vectors
            return self._vectors


def _text(inputs: Mapping[str, Any]) -> str:
    """What is compared: the texts alone where there are only texts."""
    values = [inputs[name] for name in sorted(inputs)]
    return "\n".join(v if isinstance(v, str) else json.dumps(v, sort_keys=True, default=repr) for v in values)
