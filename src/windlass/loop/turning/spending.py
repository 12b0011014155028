"""What a turn may spend: minutes, and dollars and tokens of models that are asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from windlass.apply.wrappers.budget import Budget
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit, but without dollars or tokens no language model is asked to help."""

    minutes: float | None = 10.0
    dollars: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "dollars", "tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"A turn may spend {value:g} {name}: that is nothing.", f"Give {name} above 0.")

    @property
    def budget(self) -> Budget | None:
        """For models that are asked; None: none may be."""
        if self.dollars is None and self.tokens is None:
            return None
        return Budget(dollars=self.dollars, tokens=self.tokens, per="ever")


class Clock:
    """The minutes of a turn, those of earlier, interrupted runs included."""

    def __init__(self, limits: Limits, before: float = 0.0, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limits.minutes
        self._before = before
        self._now = now
        self._began = now()

    @property
    def minutes(self) -> float:
        return self._before + (self._now() - self._began) / 60

    @property
    def left(self) -> float:
        return math.inf if self._limit is None else self._limit - self.minutes

    def refusal(self, minutes: float) -> str | None:
        """Why work that takes about so many minutes is not begun; None where it is."""
        if minutes <= self.left:
            return None
        if self.left <= 0:
            return f"the {self._limit:g} minutes are spent"
        return f"it takes about {minutes:,.1f} minutes, and {self.left:,.1f} of {self._limit:g} are left"


Spent = Mapping[str, float]
"""Minutes, usd, tokens and calls."""
