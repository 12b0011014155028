"""What a candidate must show before it is promoted: a value, and the TOML file that states it.

    error_rate = 0.025                  # chance, at most, of promoting what does not deserve it

    [primary]
    metric = "f1"
    rule = "superior"                   # or "non-inferior" or "equivalent", with a margin

    [[guard]]
    metric = "latency_ms"
    rule = "non-inferior"
    statistic = "p95"
    margin = 0.1
    relative = true                     # the margin is a tenth of what the incumbent takes

    [[ceiling]]
    metric = "cost_usd"
    at_most = 0.002

    [[floor]]
    metric = "safe"
    at_least = 0.99

    [slices]
    by = ["language"]
    margin = 0.05

All checks are decided by `evaluate.gate`; `evaluate.deciding` takes them to the values.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from windlass.core.config import strict
from windlass.core.errors import ConfigError, InputError
from windlass.evaluate.gate import Limit, Rule, Statistic, superiority
from windlass.evaluate.metrics import catalogue
from windlass.evaluate.metrics.catalogue import Better

ERROR_LIMIT = 0.02
"""Of items without a value, where a policy says nothing else."""


@dataclass(frozen=True, slots=True)
class SliceRule:
    """What must hold in every slice of the items: an average hides those on which a candidate fails."""

    by: Sequence[str]
    """What the items are sliced by: `language`, `source`, whatever they carry."""
    kind: Literal["no-harm", "non-inferiority"] = "no-harm"
    """no-harm: no slice is shown to be worse by more than the margin (Holm over the slices).
    non-inferiority: every slice is shown to be at most the margin worse, which takes many items in each."""
    margin: float = 0.0
    metric: str | None = None
    """None: the policy's primary metric."""
    better: Better = "higher"
    error_rate: float = 0.025
    """no-harm: chance, at most, that any slice is wrongly said to be harmed."""
    min_items: int = 20
    """Smaller slices are shown but not tested; with `non-inferiority` they cannot pass."""

    def __post_init__(self) -> None:
        if not self.by:
            raise InputError("The slices are by nothing.", 'Write by = ["language"], for example.')
        if not 0 <= self.margin < math.inf:
            raise InputError(f"The margin of the slices is {self.margin}, but must be 0 or more.")
        if self.kind == "non-inferiority" and self.margin == 0:
            raise InputError("Slices that must be non-inferior need a margin above 0.")
        if not 0 < self.error_rate < 0.5:
            raise InputError(f"The error rate of the slices lies between 0 and 0.5, not at {self.error_rate}.")
        if self.min_items < 2:
            raise InputError(f"A slice of {self.min_items} items cannot be tested.", "Use min_items of 2 or more.")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a candidate must show: one primary metric, then guards, limits and slices, in this fixed order."""

    primary: str
    rule: Rule = field(default_factory=superiority)
    guards: Mapping[str, Rule] = field(default_factory=dict)
    limits: Sequence[Limit] = ()
    slices: SliceRule | None = None
    error_limit: float = ERROR_LIMIT
    """Share of items without a value, because a system or its scorer failed, above which nothing is decided."""

    def __post_init__(self) -> None:
        if self.primary in self.guards:
            raise InputError(f"'{self.primary}' is both the primary metric and a guard.")
        if not 0 <= self.error_limit < 1:
            raise InputError(f"The share of errors lies between 0 and 1, not at {self.error_limit}.")
        seen: dict[tuple[str, str], list[Limit]] = {}
        for limit in self.limits:
            others = seen.setdefault((limit.metric, limit.statistic), [])
            if any((limit.at_most is None) == (other.at_most is None) for other in others):
                raise InputError(f"'{limit.metric}' has two limits of one kind.", "Keep the stricter one.")
            others.append(limit)
        for (metric, _), limits in seen.items():
            floors = [limit.at_least for limit in limits if limit.at_least is not None]
            ceilings = [limit.at_most for limit in limits if limit.at_most is not None]
            if floors and ceilings and floors[0] > ceilings[0]:
                raise InputError(
                    f"'{metric}' must be at least {floors[0]:g} and at most {ceilings[0]:g}: nothing can be both."
                )

    @property
    def level(self) -> float:
        """The level of intervals that satisfies every rule."""
        rules: list[Rule | Limit] = [self.rule, *self.guards.values(), *self.limits]
        return max(one.level for one in rules)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric that the policy asks for, each once, the primary one first."""
        sliced = [self.slices.metric] if self.slices and self.slices.metric else []
        return tuple(dict.fromkeys([self.primary, *self.guards, *(limit.metric for limit in self.limits), *sliced]))

    def check_metrics(self, known: Iterable[str]) -> None:
        """Raises `InputError` that names the first metric which is not among the known ones, and the nearest of
        them."""
        names = list(known)
        for metric in self.metrics:
            if metric not in names:
                raise InputError(f"The policy names a metric '{metric}'.", _nearest(metric, names))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Policy:
        slices = row.get("slices")
        return cls(
            row["primary"],
            Rule(**row["rule"]),
            {name: Rule(**rule) for name, rule in row["guards"].items()},
            tuple(Limit(**limit) for limit in row.get("limits", ())),
            None if slices is None else SliceRule(**{**slices, "by": tuple(slices["by"])}),
            row["error_limit"],
        )


def read_policy(path: Path, known: Mapping[str, Better] | None = None) -> Policy:
    """Reads a policy file. Raises `ConfigError`, which names the file and the key, for what is unknown or contradicts.

    known: metric -> which direction is better, for metrics of your own beside those that windlass computes. A metric
    that neither knows must say `better` itself.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.", "Mend the line it names.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", "Name a policy file.") from error
    return policy_from(values, where=str(path), known=known)


def policy_from(
    values: Mapping[str, Any], *, where: str = "policy", known: Mapping[str, Better] | None = None
) -> Policy:
    """The policy of a table that was read already; `where` names it in messages. Raises `ConfigError`."""
    file = strict(_File, values, where=where)
    directions = _Directions(known or {})
    try:
        guards: dict[str, Rule] = {}
        for guard in file.guard:
            if guard.metric in guards:
                raise InputError(f"'{guard.metric}' is a guard twice.", "Keep one of them.")
            guards[guard.metric] = _rule(guard, file, directions)
        bounds: list[_Ceiling | _Floor] = [*file.ceiling, *file.floor]
        limits = [_limit(bound, file, directions) for bound in bounds]
        primary = _rule(file.primary, file, directions)
        slices = _slices(file, directions, primary)
        return Policy(file.primary.metric, primary, guards, tuple(limits), slices, file.error_limit)
    except InputError as error:
        raise ConfigError(f"{where}: {error.message}", error.hint) from error


@dataclass(frozen=True, slots=True)
class _Comparison:
    metric: str
    rule: Literal["superior", "non-inferior", "equivalent"]
    margin: float | None = None
    relative: bool = False
    statistic: Statistic = "mean"
    better: Better | None = None
    error_rate: float | None = None


@dataclass(frozen=True, slots=True)
class _Ceiling:
    metric: str
    at_most: float
    statistic: Statistic = "mean"


@dataclass(frozen=True, slots=True)
class _Floor:
    metric: str
    at_least: float
    statistic: Statistic = "mean"


@dataclass(frozen=True, slots=True)
class _SliceTable:
    by: tuple[str, ...]
    rule: Literal["no-harm", "non-inferior"] = "no-harm"
    margin: float = 0.0
    metric: str | None = None
    better: Better | None = None
    error_rate: float | None = None
    min_items: int = 20


@dataclass(frozen=True, slots=True)
class _File:
    """The keys of the file, as `strict` reads them."""

    primary: _Comparison
    guard: tuple[_Comparison, ...] = ()
    ceiling: tuple[_Ceiling, ...] = ()
    floor: tuple[_Floor, ...] = ()
    slices: _SliceTable | None = None
    error_rate: float = 0.025
    power: float = 0.8
    min_items: int = 50
    min_clusters: int = 10
    error_limit: float = ERROR_LIMIT


_KINDS: Mapping[str, Literal["superiority", "non-inferiority", "equivalence"]] = {
    "superior": "superiority",
    "non-inferior": "non-inferiority",
    "equivalent": "equivalence",
}


def _rule(said: _Comparison, file: _File, directions: _Directions) -> Rule:
    if said.rule == "superior" and said.margin is not None:
        raise InputError(f"'{said.metric}' must be superior, which has no margin.", 'Drop it, or use "non-inferior".')
    if said.rule != "superior" and said.margin is None:
        raise InputError(f"'{said.metric}' must be {said.rule}, but within which margin?", "Write margin = 0.02.")
    try:
        return Rule(
            _KINDS[said.rule],
            said.margin or 0.0,
            _direction(said.metric, said.better, directions, needed=said.rule != "equivalent"),
            file.error_rate if said.error_rate is None else said.error_rate,
            file.power,
            file.min_items,
            file.min_clusters,
            said.statistic,
            said.relative,
        )
    except InputError as error:
        raise InputError(f"'{said.metric}': {error.message}", error.hint) from error


def _limit(said: _Ceiling | _Floor, file: _File, directions: _Directions) -> Limit:
    ceiling = isinstance(said, _Ceiling)
    if directions.get(said.metric) == ("higher" if ceiling else "lower"):
        better, kind = ("higher", "ceiling") if ceiling else ("lower", "floor")
        raise InputError(
            f"'{said.metric}' is better {better}, so a {kind} forbids what is good.",
            f"Write [[{'floor' if ceiling else 'ceiling'}]] with {'at_least' if ceiling else 'at_most'}.",
        )
    return Limit(
        said.metric,
        said.at_most if isinstance(said, _Ceiling) else None,
        said.at_least if isinstance(said, _Floor) else None,
        said.statistic,
        file.error_rate,
        file.power,
        file.min_items,
        file.min_clusters,
    )


def _slices(file: _File, directions: _Directions, primary: Rule) -> SliceRule | None:
    said = file.slices
    if said is None:
        return None
    better = primary.better
    if said.metric is not None and said.metric != file.primary.metric:
        better = _direction(said.metric, said.better, directions, needed=True)
    return SliceRule(
        said.by,
        "no-harm" if said.rule == "no-harm" else "non-inferiority",
        said.margin,
        said.metric,
        better,
        file.error_rate if said.error_rate is None else said.error_rate,
        said.min_items,
    )


def _direction(name: str, said: Better | None, directions: _Directions, *, needed: bool) -> Better:
    """Which direction is better. A wrong guess would promote the worse one, so none is made."""
    known = directions.get(name)
    if known is None:
        near = directions.near(name)
        if said is None and (near or needed):
            meant = f"Did you mean '{near[0]}'? Of" if near else "Of"
            raise InputError(
                f"Nothing is known of a metric '{name}'.",
                f'{meant} a metric of your own say which is better: better = "higher" or better = "lower".',
            )
        return said or "higher"
    if said is not None and said != known:
        raise InputError(f"'{name}' is better {known}, not {said}.", "Drop `better`; it is known.")
    return known


class _Directions:
    """Which direction is better: of metrics of the user's own, then of those in the catalogue."""

    def __init__(self, own: Mapping[str, Better]) -> None:
        self._own = own

    def get(self, name: str) -> Better | None:
        if name in self._own:
            return self._own[name]
        try:
            return catalogue.metric(name).better
        except InputError:  # of somebody else's own
            return None

    def near(self, name: str) -> list[str]:
        cutoff = name.partition("@")[2] or "k"
        return difflib.get_close_matches(
            name, [*self._own, *(one.replace("@k", f"@{cutoff}") for one in catalogue.METRICS)], n=1
        )


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known) or 'none'}."
