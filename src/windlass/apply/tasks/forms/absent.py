"""Having no answer, as a value: `-> Invoice | Absent` lets a model say that there is none, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no answer in what was given, or the model declines to give it."""

    why_absent: str

    def __bool__(self) -> bool:
        return False
