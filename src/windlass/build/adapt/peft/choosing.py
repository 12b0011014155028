"""Which of a model's maps and parameters are meant: by layer, by the last part of a name, by a pattern of the whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from windlass.core.errors import InputError

_LAYER = re.compile(r"(.*?)\bblocks\.(\d+)\.")


def in_layers(names: Iterable[str], layers: str) -> list[str]:
    """Those of the names that lie in the layers meant: `last 2`, `first 2`, or numbers (from 0) such as `0,4-7`. An
    encoder-decoder has such layers on both sides; empty are all, and what lies outside of layers.

    Raises `InputError` for words that mean nothing, and for a layer that there is not.
    """
    names = list(names)
    if not layers:
        return names
    placed = {name: (match[1], int(match[2])) for name in names if (match := _LAYER.match(name))}
    counts: dict[str, int] = {}
    for side, number in placed.values():
        counts[side] = max(counts.get(side, 0), number + 1)
    wanted = {(side, number) for side, count in counts.items() for number in _numbers(layers, count)}
    return [name for name in names if placed.get(name) in wanted]


def _numbers(layers: str, count: int) -> set[int]:
    if match := re.fullmatch(r"(first|last) (\d+)", layers):
        several = int(match[2])
        found = set(range(several)) if match[1] == "first" else set(range(count - several, count))
    elif re.fullmatch(r"\d+(-\d+)?( *, *\d+(-\d+)?)*", layers):
        ends = [[int(end) for end in part.split("-")] for part in layers.split(",")]
        found = {number for part in ends for number in range(part[0], part[-1] + 1)}
    else:
        raise InputError(f"adapter.layers is {layers!r}.", "Write 'last 2', 'first 2', or numbers such as '0,4-7'.")
    if not found or not found <= set(range(count)):
        raise InputError(f"adapter.layers is {layers!r}, but the layers are 0 to {count - 1}.", "Name some of these.")
    return found


def named(names: Collection[str], targets: Collection[str], hint: str, setting: str = "targets") -> list[str]:
    """Those of the names that a target means. Raises `InputError` with the hint for a target that means none."""
    for target in targets:
        if not any(_means(target, name) for name in names):
            where = "which no block of this model has" if setting == "targets" else "which this model does not have"
            raise InputError(f"adapter.{setting} names '{target}', {where}.", hint)
    return [name for name in names if any(_means(target, name) for target in targets)]


def _means(target: str, name: str) -> bool:
    return target in name.split(".")[-2:] or fnmatchcase(name, target)
