"""Warm-up, stable, decay (WSD): the learning rate rises in a few steps, stays, and falls linearly to zero.

Hu et al., arXiv 2404.06395; a fall to zero over a large share of a short run: Haegele et al., arXiv 2405.18392.
Unlike a cosine it needs no horizon until the decay starts, so a run on a clock can correct its plan on the way.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """When the run ends and the rate falls. A revised plan starts where the old one stood: no jump in the rate."""

    steps: int
    """All steps of the run."""
    decay_from: int
    """The step at which the rate begins to fall."""
    decay_height: float = 1.0
    """Multiplier of the rate at that step."""

    def multiplier(self, step: int, warmup: int) -> float:
        """Multiplier of all learning rates for the step with this number (counting from 0)."""
        if step < self.decay_from:
            return min(1.0, (step + 1) / (warmup + 1))
        remaining = (self.steps - step) / max(self.steps - self.decay_from, 1)
        return max(0.0, self.decay_height * remaining)


def fresh(steps: int, cooldown: float) -> Plan:
    """A plan whose last share `cooldown` decays."""
    return Plan(steps, steps - round(steps * cooldown))


def revised(plan: Plan, step: int, steps: int, cooldown: float, warmup: int) -> Plan:
    """The plan for ending at `steps` instead, made before step number `step`."""
    if step < plan.decay_from:
        renewed = fresh(steps, cooldown)
        if renewed.decay_from > step:
            return renewed
    return Plan(steps, step, plan.multiplier(step, warmup))
