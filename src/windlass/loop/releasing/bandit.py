"""Thompson sampling: shares that follow what the arms earn, with a floor for each.

The share of an arm is the probability that it is the best one, under Beta posteriors of rewards from 0 to 1 (Thompson
1933; Chapelle & Li, NIPS 2011), drawn to the floor so that every arm is seen for as long as it runs. Shares are changed
now and then and logged with each call as its propensity, so that what was earned can be estimated without the bias that
looking for the best brings (`evaluate.moments`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from windlass.core.errors import InputError
from windlass.evaluate.online import Tally

DRAWS = 20_000


def thompson_shares(rewards: Mapping[str, Tally], *, floor: float, seed: int = 0) -> dict[str, float]:
    """Arm -> share. Raises `InputError` for rewards outside of 0 to 1, and a floor that leaves nothing to share out."""
    arms = list(rewards)
    if not 0 <= floor * len(arms) < 1:
        raise InputError(f"{len(arms)} arms cannot keep a share of {floor:g} each.", "Lower the floor.")
    won = np.array([tally.mean * tally.n for tally in rewards.values()])
    lost = np.array([tally.n for tally in rewards.values()]) - won
    if (won < -1e-9).any() or (lost < -1e-9).any():
        raise InputError("A bandit's reward lies between 0 and 1.", "Scale it, or choose another metric.")
    drawn = np.random.default_rng(seed).beta(1 + np.maximum(won, 0), 1 + np.maximum(lost, 0), (DRAWS, len(arms)))
    best = np.bincount(drawn.argmax(axis=1), minlength=len(arms)) / DRAWS
    shares = floor + (1 - floor * len(arms)) * best
    return dict(zip(arms, (shares / shares.sum()).tolist()))
