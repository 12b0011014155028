"""The right number: the one that an answer ends in, or that it has put into a box."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards.reward import Answer, Reward
from windlass.core.errors import InputError
from windlass.core.extracting import number_in


def _wanted(row: Row) -> Fraction:
    value = row.values.get("answer")
    found = number_in(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if found is None:
        raise InputError(
            f"{row.where}: answer is {str(value)[:80]!r}, in which there is no number.",
            "The reward `number` compares with a number, as in {'question': ..., 'answer': '42'}.",
        )
    return found


def _check(row: Row) -> None:
    _wanted(row)


def _judge(answers: Sequence[Answer]) -> list[float]:
    return [float(number_in(answer.text) == _wanted(answer.row)) for answer in answers]


NUMBER = Reward(_judge, _check)
