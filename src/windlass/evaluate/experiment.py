"""What a candidate must show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from windlass.core.errors import InputError
from windlass.evaluate.gate import Rule, superiority


@dataclass(frozen=True, slots=True)
class Policy:
    """What a candidate must show: one primary metric, then guards, in this fixed order (see `gate`)."""

    primary: str
    rule: Rule = field(default_factory=superiority)
    guards: Mapping[str, Rule] = field(default_factory=dict)
    error_limit: float = 0.02
    """Share of items on which a system may fail before the experiment decides nothing."""

    def __post_init__(self) -> None:
        if self.primary in self.guards:
            raise InputError(f"'{self.primary}' is both the primary metric and a guard.")

    @property
    def level(self) -> float:
        """The level of intervals that satisfies every rule."""
        return max(rule.level for rule in (self.rule, *self.guards.values()))

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.primary, *self.guards)
