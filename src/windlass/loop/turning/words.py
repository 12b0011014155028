"""A difference in words that need no statistics."""

from __future__ import annotations

from windlass.loop.turning.ground import Gain


def figure(gain: Gain, value: float) -> str:
    """One side of a difference, as short as it can be understood."""
    return f"{100 * value:.1f} of 100" if gain.share else f"{value:,.4g}"


def told(gain: Gain) -> str:
    """A difference and its interval as a sentence."""
    d = gain.difference
    if not gain.share:
        known = "surely more" if d.low > 0 else "surely less" if d.high < 0 else "which way is not shown"
        return (
            f"{gain.what}: {gain.before:,.4g} before, {gain.after:,.4g} now; the difference is {d.estimate:+,.4g} "
            f"(between {d.low:+,.4g} and {d.high:+,.4g}), {known}."
        )
    before, after, low, high = (100 * one for one in (gain.before, gain.after, d.low, d.high))
    if d.low > 0:
        said = f"{low:.1f} to {high:.1f} more of a hundred"
    elif d.high < 0:
        said = f"{-high:.1f} to {-low:.1f} fewer of a hundred"
    else:
        said = f"between {-low:.1f} fewer and {high:.1f} more of a hundred, so no difference is shown"
    return f"{gain.what}: {before:.1f} of a hundred before, {after:.1f} now: {said}."
