"""The right number: the one that an answer ends in, or that it has put into a box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.rl.rewards.reward import Answer, Reward
from windlass.core.errors import InputError

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:/\d+)?")
_BOX = re.compile(r"\\boxed\{([^{}]*)\}")
_LONGEST = 400
"""Characters of a number; no exercise has longer ones, and converting them takes time that grows with their square."""


def number_in(text: str) -> Fraction | None:
    """The number in the last `\\boxed{}` of a text, else the one behind its last `####`, else its last one; exactly, as
    a fraction. None where there is none."""
    boxes = _BOX.findall(text)
    if boxes:
        text = boxes[-1]
    elif "####" in text:
        text = text.rpartition("####")[2]
    found = _NUMBER.findall(text)
    if not found or len(found[-1]) > _LONGEST:
        return None
    try:
        return Fraction(found[-1].replace(",", ""))
    except ZeroDivisionError:
        return None


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
