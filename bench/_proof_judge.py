"""A simple judge of answers, for the proofs of small decoders: which of two is more like what people preferred.

Bradley and Terry (1952) over MiniLM's vectors: a linear score of an answer by itself and beside its question. It scores
each answer alone, so no order of two can matter, and it does not see lengths.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from bench._proof_data import Row
from numpy.typing import NDArray

from windlass.serve.encoders.embedder import MiniLM

Floats = NDArray[np.float64]


class Judge:
    def __init__(self, pairs: Sequence[Row]) -> None:
        """Learns from pairs with `prompt`, `chosen` and `rejected`; how much it is held back is chosen on them too."""
        from sklearn.linear_model import LogisticRegressionCV

        self._encoder = MiniLM.load()
        chosen, rejected = (self._features(pairs, [row[side] for row in pairs]) for side in ("chosen", "rejected"))
        apart = chosen - rejected
        sign = np.where(np.arange(len(apart)) % 2, 1.0, -1.0)  # both classes, or there is nothing to tell apart
        model: Any = LogisticRegressionCV(Cs=[0.01, 0.1, 1, 10], cv=5, fit_intercept=False, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            self._weights: Floats = model.fit(apart * sign[:, None], sign > 0).coef_[0]

    def scores(self, rows: Sequence[Row], said: Sequence[str]) -> Floats:
        """Of one answer to each prompt."""
        scores: Floats = self._features(rows, said) @ self._weights
        return scores

    def _features(self, rows: Sequence[Row], said: Sequence[str]) -> Floats:
        asked = self._encoder.embed([last_turn(row) for row in rows]).vectors
        answers = self._encoder.embed([text or "-" for text in said]).vectors
        return np.concatenate([answers, asked * answers * np.sqrt(asked.shape[1])], axis=1)


def last_turn(row: Row) -> str:
    prompt = row["prompt"]
    return str(prompt if isinstance(prompt, str) else prompt[-1]["content"])
