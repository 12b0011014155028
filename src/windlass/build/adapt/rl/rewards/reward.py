"""A reward: what judges answers, and what makes sure beforehand that it can."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from windlass.build.adapt.data.rows import Row
from windlass.core.errors import InputError


class Answer(NamedTuple):
    text: str
    row: Row
    """What it is an answer to."""


def _accept(row: Row) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Reward:
    judge: Callable[[Sequence[Answer]], list[float]]
    """A number for each answer, larger is better. Whatever an answer holds, it gets one."""
    check: Callable[[Row], None] = _accept
    """Raises `InputError` naming a row and its column by which answers could not be judged."""
    note: Callable[[], str] = str
    """What a person should know before it is used."""


def chosen(names: Sequence[str], known: Mapping[str, Reward]) -> dict[str, Reward]:
    """The rewards of these names. Raises `InputError` for an unknown one."""
    for name in names:
        if name not in known:
            raise InputError(f"rl.rewards names '{name}', which is no reward.", f"There are {', '.join(known)}.")
    return {name: known[name] for name in names}
