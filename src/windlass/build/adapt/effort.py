"""What a tuning took: time of the processor, and from it an estimate of energy and cost, with what was assumed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from windlass.build.adapt.sections import TuneRunSettings
from windlass.build.training.distributed.workers import Workers


@dataclass(frozen=True, slots=True)
class Effort:
    seconds: float
    """By the clock, earlier parts of the run included."""
    core_seconds: float
    """Time of the processor, of all threads of all processes together."""
    watts: float
    price: float | None

    @property
    def watt_hours(self) -> float:
        return self.core_seconds * self.watts / 3600

    @property
    def cost(self) -> float | None:
        return None if self.price is None else self.seconds / 3600 * self.price

    def metrics(self) -> dict[str, float]:
        found = {"core_seconds": self.core_seconds, "watt_hours": self.watt_hours}
        return found if self.cost is None else found | {"cost": self.cost}

    def __str__(self) -> str:
        paid = "" if self.cost is None else f", {self.cost:.4f} at {self.price:g} an hour"
        return (
            f"about {self.watt_hours:.3g} Wh: {self.core_seconds:,.1f} s of one core at an assumed {self.watts:g} W"
            f"{paid}"
        )


class Stopwatch:
    """Runs from its making on. A run that was taken up is taken to have worked before as it did since."""

    def __init__(self, asked: TuneRunSettings) -> None:
        self._asked, self._clock, self._core = asked, time.monotonic(), time.process_time()

    def effort(self, before: float, workers: Workers) -> Effort:
        """`before`: seconds of training before this run was taken up. All workers must call it together."""
        clock, (core,) = time.monotonic() - self._clock, workers.total(time.process_time() - self._core)
        whole = before + clock
        return Effort(whole, core * whole / max(clock, 1e-9), self._asked.watts, self._asked.price_per_hour)
