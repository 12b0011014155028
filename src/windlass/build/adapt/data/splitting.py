"""What is trained on and what is held out: examples that are the same, or belong together, stay on one side."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence

from windlass.core.errors import InputError


def split(
    keys: Sequence[Hashable], share: float, seed: int, strata: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Numbers of the examples to train on and of those to measure, both in their order.

    Examples with equal keys stay together. `strata`: what of each example is to be as frequent on both sides, as far as
    that can be; none of them is held out as a whole. Raises `InputError` when there is too little for both.
    """
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    if strata is not None:
        order.sort(key=lambda group: repr(strata[group[0]]))  # stable: at random within each
    count = max(1, round(len(order) * share))
    if len(order) - count < 1:
        raise InputError(
            f"There are {len(order)} different examples, too few to train on some and to measure others.",
            "Give more examples.",
        )
    # At equal distances in that order, so that each stratum gives its share.
    start = random.Random(f"{seed}/start").random()
    held = {int((place + start) * len(order) / count) for place in range(count)}
    if strata is not None:
        known = Counter(strata[group[0]] for place, group in enumerate(order) if place not in held)
        held = {place for place in held if known[strata[order[place][0]]]}
        if not held:  # only kinds that are there once were hit
            held = {place for place, group in enumerate(order) if known[strata[group[0]]] > 1}
            held = set(sorted(held)[:1])
    if not held:
        raise InputError(
            "Every kind of example is there only once, so nothing can be held out.", "Give more examples of each."
        )
    train = sorted(number for place, group in enumerate(order) if place not in held for number in group)
    return train, sorted(number for place in held for number in order[place])
