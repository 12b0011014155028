"""What counts in a text that a model wrote: its number, its code. One definition for rewards and for metrics."""

from __future__ import annotations

import re
from fractions import Fraction

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


_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_in(text: str) -> str:
    """The last block of code of an answer; all of it where there are no blocks."""
    blocks: list[str] = _FENCE.findall(text)
    return blocks[-1] if blocks else text
