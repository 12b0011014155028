"""How the learning rate rises and falls over a run.

- Warm-up, stable, decay (WSD): it stays, and falls linearly at the end (Hu et al., arXiv 2404.06395; over a large
  share of a short run: Haegele et al., arXiv 2405.18392). Where to fall is decided late.
- Cosine: it falls all the time (Loshchilov and Hutter, arXiv 1608.03983).

Both are functions of *progress*, which goes from 0 to 1. A run on a clock corrects its number of steps on the way; it
then changes how fast progress is made from there on, and the rate never jumps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from windlass.build.training.settings import ScheduleSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the run ends, and how it gets there: evenly, from the progress it had at some step."""

    steps: int
    """All steps of the run."""
    since: int = 0
    progress_then: float = 0.0

    def progress(self, step: int) -> float:
        """Share of the run that is over before step number `step`, counting from 0."""
        if step >= self.steps:
            return 1.0
        return self.progress_then + (1 - self.progress_then) * (step - self.since) / (self.steps - self.since)

    def revised(self, step: int, steps: int) -> Plan:
        """The plan for ending at `steps` instead, made before step number `step`."""
        return Plan(steps, step, self.progress(step))


def multiplier(schedule: ScheduleSettings, plan: Plan, step: int, warmup: int) -> float:
    """Of all learning rates, for the step with this number (counting from 0)."""
    progress = plan.progress(step)
    if schedule.kind == "cosine":
        height = (1 + math.cos(math.pi * progress)) / 2
    else:
        height = min(1.0, (1 - progress) / schedule.cooldown) if schedule.cooldown else 1.0
    return min(1.0, (step + 1) / (warmup + 1)) * (schedule.floor + (1 - schedule.floor) * height)
