"""What a person may ask of a merge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from windlass.core.errors import InputError

Method = Literal["linear", "slerp", "ties", "dare_linear", "dare_ties"]
METHODS: tuple[Method, ...] = get_args(Method)
_TASK_VECTORS = ("ties", "dare_linear", "dare_ties")
_DENSITY: dict[Method, float] = {"ties": 0.2, "dare_linear": 0.1, "dare_ties": 0.1}
"""What the papers found to be enough."""


@dataclass(frozen=True, slots=True)
class Merging:
    method: Method = "linear"
    weights: tuple[float, ...] = ()
    """One for each model. `linear`, `ties` and `dare_ties` take means, to which only proportions matter; `slerp` goes
    from the first model to the second by the share of the second's weight; `dare_linear` adds up the task vectors
    times their weights. Empty: all the same, 1 in sum."""
    density: float | None = None
    """Share of each task vector that stays; None: 0.2 for `ties`, 0.1 for the others."""
    scale: float = 1.0
    """What the merged task vector is multiplied by before it is added to the base."""
    seed: int = 0
    """Of what is dropped by chance."""

    @property
    def on_base(self) -> bool:
        """Whether it merges what training added to a base."""
        return self.method in _TASK_VECTORS

    @property
    def kept(self) -> float:
        """The density, where there is one."""
        return _DENSITY[self.method] if self.density is None else self.density

    def shares(self, count: int) -> Sequence[float]:
        """The weight of each of so many models. Raises `InputError` for weights that mean nothing."""
        weights = self.weights or (1 / count,) * count
        if len(weights) != count:
            raise InputError(
                f"There are {count} models, but {len(weights)} weights.", "Give each model a weight, or none."
            )
        if not all(map(math.isfinite, weights)):
            raise InputError(f"The weights are {_listed(weights)}.", "A weight is a number.")
        total = sum(weights)
        if self.method != "dare_linear" and abs(total) < 1e-6:
            raise InputError(
                f"The weights {_listed(weights)} are 0 in sum, but '{self.method}' divides by it.",
                "Give other weights; those of 'linear' may be negative as long as the sum is not 0.",
            )
        if self.method in ("slerp", "ties", "dare_ties") and min(weights) < 0:
            raise InputError(
                f"The weights are {_listed(weights)}, but '{self.method}' knows no negative ones.",
                "Subtract with 'linear': A=1 B=-0.5 base=0.5 is A without half of what B learned.",
            )
        return weights if self.method == "dare_linear" else [weight / total for weight in weights]

    def check(self, models: int, base: bool) -> None:
        """Raises `InputError` for what the method has no use for, or lacks."""
        if self.method not in METHODS:
            raise InputError(f"There is no method '{self.method}'.", f"Choose one of: {', '.join(METHODS)}.")
        if models < 2 and not (self.on_base and models):
            raise InputError(f"There is nothing to merge by '{self.method}'.", "Name two models or more.")
        if self.method == "slerp" and models != 2:
            raise InputError(f"'slerp' goes from one model to another, but {models} are named.", "Name two.")
        if self.on_base and not base:
            raise InputError(
                f"'{self.method}' merges what training added to a base, but no base is named.",
                "Name with --base the model that all of them were trained from.",
            )
        if base and not self.on_base:
            raise InputError(
                f"'{self.method}' has no use for a base.",
                f"Leave it out, or choose one of: {', '.join(_TASK_VECTORS)}.",
            )
        if not self.on_base and (self.density is not None or self.scale != 1.0):
            raise InputError(f"'{self.method}' has no density and no scale.", "Leave them out.")
        if self.on_base and not 0 < self.kept <= 1:
            raise InputError(f"The density is {self.density:g}.", "It is more than 0, and at most 1.")
        if not math.isfinite(self.scale):
            raise InputError(f"The scale is {self.scale:g}.", "It is a number, 1 as a rule.")
        self.shares(models)

    def as_json(self, models: int) -> dict[str, Any]:
        """What was done, for a card: only what the method heeds."""
        values: dict[str, Any] = {"method": self.method, "weights": [float(f"{w:.6g}") for w in self.shares(models)]}
        if self.on_base:
            values |= {"density": self.kept, "scale": self.scale}
        if self.method.startswith("dare"):
            values["seed"] = self.seed
        return values


def _listed(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)
