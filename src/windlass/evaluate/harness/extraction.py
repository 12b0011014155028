"""The answer that a text holds: found by a pattern, and compared with those that are right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from windlass.core.answers import normalised
from windlass.core.errors import InputError
from windlass.evaluate.metrics.choices import letter_in

NUMBER = r"-?\$?[0-9][0-9,]*(?:\.[0-9]+)?|-?\.[0-9]+"

LETTERS = "ABCDEFGHIJ"
Alike = Literal["text", "words", "number", "letter"]
"""When two answers are the same: `text`: but for white space around them; `words`: but for case, punctuation and
articles, as SQuAD compares; `number`: as numbers, `$1,200.00` being 1200; `letter`: the one that the text chooses."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Which part of what was written is the answer."""

    pattern: str = ""
    """A regular expression; the answer is its first group, or all of it. Empty: the whole text."""
    pick: Literal["first", "last"] = "first"
    """Of several matches."""
    alike: Alike = "text"

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"{self.pattern!r} is no regular expression ({error})") from error

    def found_in(self, text: str) -> str | None:
        """None where the text holds no answer, which is a wrong one."""
        if self.alike == "letter" and not self.pattern:
            return letter_in(text, LETTERS)
        pattern = self.pattern or (NUMBER if self.alike == "number" else "")
        if not pattern:
            return text.strip()
        matches = list(re.finditer(pattern, text))
        if not matches:
            return None
        match = matches[0 if self.pick == "first" else -1]
        groups = [group for group in match.groups() if group is not None]
        return (groups[0] if groups else match[0]).strip()

    def right(self, found: str | None, gold: Sequence[str]) -> bool:
        """Whether it is one of those that are right. Raises `InputError` for gold that is no number where it must."""
        if found is None:
            return False
        if self.alike == "words":
            return normalised(found) in {normalised(one) for one in gold}
        if self.alike == "number":
            numbers = [_number(one) for one in gold]
            if None in numbers:
                raise InputError(f"The right answer {gold[numbers.index(None)]!r} is no number.", "Mend the data.")
            said = _number(found)
            return said is not None and any(
                abs(said - one) <= 1e-6 * max(1.0, abs(one)) for one in numbers if one is not None
            )
        return found.strip() in {one.strip() for one in gold}


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").replace("$", "").strip().rstrip("."))
    except ValueError:
        return None
