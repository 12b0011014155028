"""Training by the clock: measures the speed, fixes the plan, and corrects it while the machine's speed changes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from windlass.build.training.optim.schedule import Plan

UNPLANNED = Plan(1 << 40)
"""Before the speed is known: warm up and stay."""

_UNTIMED = 2
_WINDOW = 30
_EVERY = 10
_TOLERANCE = 0.01


class Pace:
    """Seconds used and left of a budget. `before` are those that earlier processes of the same run used."""

    def __init__(
        self, budget_s: float, before: float, started: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.budget_s, self._before, self._started, self._clock = budget_s, before, started, clock
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._steps = 0

    @property
    def elapsed(self) -> float:
        return self._before + self._clock() - self._started

    @property
    def left(self) -> float:
        """Seconds that steps may still take."""
        return self.budget_s - self.elapsed

    @property
    def step_s(self) -> float | None:
        """Seconds a step takes, None while unknown: the first steps of a process compile and warm caches."""
        return sum(self._times) / len(self._times) if len(self._times) >= 3 else None

    def measured(self, seconds: float) -> None:
        """Tells how long a step took."""
        self._steps += 1
        if self._steps > _UNTIMED:
            self._times.append(seconds)

    def plan(self, plan: Plan, step: int) -> Plan:
        """The plan as it should be before step number `step`: unchanged, or revised to meet the budget."""
        if self.step_s is None or (plan != UNPLANNED and self._steps % _EVERY):
            return plan
        possible = step + max(int(self.left / self.step_s), 1)
        if plan != UNPLANNED and abs(possible - plan.steps) <= _TOLERANCE * (plan.steps - step):
            return plan
        return plan.revised(step, possible)

    def must_stop(self) -> bool:
        """Whether one more step would break the budget."""
        return self.left < (self.step_s or 0.0)
