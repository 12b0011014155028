"""Where a function that rises crosses 0: for ends of intervals, which are where a test no longer refutes."""

from __future__ import annotations

from collections.abc import Callable

_STEPS = 200


def bracket(
    rising: Callable[[float], float], start: float, step: float, least: float, most: float
) -> tuple[float, float]:
    """Two points around the crossing, from `start` on by steps that double. Both are `least` or `most` where the
    function has not crossed 0 there yet."""
    low = high = start
    if rising(start) > 0.0:
        while low > least:
            high, low, step = low, max(least, low - step), 2.0 * step
            if rising(low) <= 0.0:
                return low, high
        return least, least
    while high < most:
        low, high, step = high, min(most, high + step), 2.0 * step
        if rising(high) > 0.0:
            return low, high
    return most, most


def crossing(rising: Callable[[float], float], low: float, high: float, tolerance: float) -> tuple[float, float]:
    """The bracket made as narrow as the tolerance: below, where the function is at most 0, and above, where it is more.

    Regula falsi, with the value at an end that stays put halved (Dowell & Jarratt, BIT 11, 1971: the Illinois method).
    """
    below, above, stayed = rising(low), rising(high), 0
    for _ in range(_STEPS):
        if high - low <= tolerance:
            break
        middle = low - below * (high - low) / (above - below)
        # Half a tolerance off the ends, or one of them would be approached and the other never moved.
        middle = min(max(middle, low + 0.5 * tolerance), high - 0.5 * tolerance)
        found = rising(middle)
        if found > 0.0:
            high, above, below, stayed = middle, found, below / 2 if stayed < 0 else below, -1
        else:
            low, below, above, stayed = middle, found, above / 2 if stayed > 0 else above, 1
    return low, high
