"""What is trained on and what is held out: examples that are the same, or belong together, stay on one side."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from windlass.core.errors import InputError

T = TypeVar("T")
_LEAST = 4
"""Different examples: of fewer, what is held out is most of what there was to learn."""


def split(
    keys: Sequence[Hashable], share: float, seed: int, strata: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Numbers of the examples to train on and of those to measure, both in their order.

    Examples with equal keys stay together. `strata`: what of each example is to be as frequent on both sides, as far as
    that can be; none of them is held out as a whole. Raises `InputError` when there is too little for both.
    """
    order, count = _shuffled(keys, share, seed, "examples")
    if strata is not None:
        order.sort(key=lambda group: repr(strata[group[0]]))  # stable: at random within each
    # At equal distances in that order, so that each stratum gives its share.
    start = random.Random(f"{seed}/start").random()
    held = {int((place + start) * len(order) / count) for place in range(count)}
    if strata is not None:
        kinds = [strata[group[0]] for group in order]
        known = {kind for place, kind in enumerate(kinds) if place not in held}
        for place in sorted(held):  # of a kind that would be held out whole, the first is trained on
            if kinds[place] not in known:
                held.remove(place)
                known.add(kinds[place])
        if not held:  # only kinds that are there once were hit
            many = Counter(kinds)
            held = set([place for place, kind in enumerate(kinds) if many[kind] > 1][:1])
    if not held:
        raise InputError(
            "Every kind of example is there only once, so nothing can be held out.", "Give more examples of each."
        )
    train = sorted(number for place, group in enumerate(order) if place not in held for number in group)
    return train, sorted(number for place in held for number in order[place])


def split_off(
    items: Sequence[T], key: Callable[[T], Hashable], share: float, seed: int, what: str = "examples"
) -> tuple[list[T], list[T]]:
    """The items to train on and those to measure, both at random; those with equal keys stay together. Raises
    `InputError`, which calls them `what`, when there is too little for both."""
    order, count = _shuffled([key(item) for item in items], share, seed, what)
    train, held = ([items[number] for group in part for number in group] for part in (order[count:], order[:count]))
    return train, held


def _shuffled(keys: Sequence[Hashable], share: float, seed: int, what: str) -> tuple[list[list[int]], int]:
    """Groups of equal keys at random, and how many of them are held out."""
    groups: dict[Hashable, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    count = max(1, round(len(order) * share))
    if len(order) - count < 1 or len(order) < _LEAST:
        raise InputError(
            f"There are {len(order)} different {what}, too few to train on some and to measure others.",
            f"Give {_LEAST} or more; with some dozens the held-out figures begin to say something.",
        )
    return order, count
