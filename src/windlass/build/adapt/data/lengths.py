"""How long examples may be. None is ever cropped: half an answer teaches to stop, or to go on, in the wrong place."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import TypeVar

from windlass.build.adapt.opening import Opened
from windlass.core.errors import InputError

S = TypeVar("S", bound=Sized)
_LEAST = 256
"""Short examples share rows of so many positions."""


def row_size(opened: Opened, examples: Sequence[S], length: Callable[[S], int] = len) -> tuple[int, list[S], list[str]]:
    """Positions of a row, the examples that fit into one, and a line about those that were left out, if any.

    Raises `InputError` when the settings ask for more than the base reads, and for examples that do not fit, unless the
    settings say to leave them out.
    """
    most, asked = opened.context, opened.settings.model.context
    if asked is not None and asked > most:
        raise InputError(
            f"model.context is {asked:,} tokens, but {opened.base_name} reads {most:,}.", "Choose a smaller one."
        )
    limit = asked or most
    if not examples:
        raise InputError("There is no example to learn from.", "Look at what was left out before.")
    lengths = [length(example) for example in examples]
    longest = max(lengths)
    if longest <= limit:
        return asked or min(most, max(longest, _LEAST)), list(examples), []
    over = sum(one > limit for one in lengths)
    if opened.settings.data.overlong == "refuse" or over == len(examples):
        raise InputError(
            f"{over:,} of {len(examples):,} examples are longer than a row of {limit:,} tokens; the longest has "
            f"{longest:,}.",
            "Leave them out with --set data.overlong=drop, or choose a larger model.context or another base: nothing "
            "is cropped.",
        )
    kept = [example for example, one in zip(examples, lengths, strict=True) if one <= limit]
    line = (
        f"left out: {over:,} of {len(examples):,} examples, longer than {limit:,} tokens (the longest has {longest:,})"
    )
    return asked or min(most, max(max(map(length, kept)), _LEAST)), kept, [line]
