"""All that may be said of a tuning, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from windlass.build.adapt.consistency import check_adapter, check_data, check_objective, check_tokens
from windlass.build.adapt.rl.settings import RLSettings
from windlass.build.adapt.sections import (
    AdapterKind,
    AdapterSettings,
    BaseSettings,
    RangeSettings,
    TuneDataSettings,
    TuneObjectiveSettings,
    TuneOptimizerSettings,
    TuneRunSettings,
    TuneScheduleSettings,
)
from windlass.build.training.settings import check_ends, check_ranges
from windlass.core.errors import InputError

_RATES: dict[AdapterKind, float] = {"none": 2e-5, "ia3": 3e-3, "prompt": 1e-2, "prefix": 1e-2}


@dataclass(frozen=True, slots=True)
class TuneSettings:
    model: BaseSettings = field(default_factory=BaseSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    data: TuneDataSettings = field(default_factory=TuneDataSettings)
    objective: TuneObjectiveSettings = field(default_factory=TuneObjectiveSettings)
    rl: RLSettings = field(default_factory=RLSettings)
    optimizer: TuneOptimizerSettings = field(default_factory=TuneOptimizerSettings)
    schedule: TuneScheduleSettings = field(default_factory=TuneScheduleSettings)
    run: TuneRunSettings = field(default_factory=TuneRunSettings)
    search: Mapping[str, Mapping[str, RangeSettings]] = field(default_factory=dict)
    """What `--search` tries, by section and key, as in `adapter.rank = { choices = [4, 8] }`."""

    def __post_init__(self) -> None:
        check_ends(self.schedule, self.run)
        check_ranges(self)
        check_objective(self.objective)
        check_data(self.data, self.objective.kind)
        check_adapter(self.adapter)
        check_tokens(self.adapter, self.model.new_tokens, self.objective.kind)
        if not self.run.watts > 0 or not (self.run.price_per_hour or 0) >= 0:
            raise InputError(f"run.watts is {self.run.watts:g}, run.price_per_hour {self.run.price_per_hour}.")
        if self.adapter.bits is not None and self.writes_answers:
            raise InputError(
                f"adapter.bits is {self.adapter.bits}, but with objective.kind '{self.objective.kind}' an engine "
                "answers that has the base as it is, another model than the one that would learn from its answers.",
                "Leave adapter.bits out.",
            )

    @property
    def writes_answers(self) -> bool:
        """Whether the model that is trained answers in each step, and learns from what it said."""
        return self.objective.kind in ("grpo", "ppo") or bool(self.objective.own_share)

    @property
    def stores_adapter(self) -> bool:
        """Whether an adapter is stored rather than a model."""
        return self.adapter.kind != "none" and not self.adapter.merge

    @property
    def rate(self) -> float:
        """Peak learning rate: what few numbers must learn takes larger steps than weights that know something."""
        return self.optimizer.matrix_rate or _RATES.get(self.adapter.kind, 2e-4)

    def as_json(self) -> dict[str, Any]:
        """Nested tables as JSON brings them back."""
        values = asdict(self)
        values["optimizer"]["betas"] = list(self.optimizer.betas)
        values["model"]["new_tokens"] = list(self.model.new_tokens)
        for field_ in ("targets", "also", "tokens"):
            values["adapter"][field_] = list(values["adapter"][field_])
        values["search"] = {
            section: {key: one.as_json() for key, one in ranges.items()} for section, ranges in self.search.items()
        }
        values["data"]["evaluation"] = list(self.data.evaluation)
        values["data"]["columns"] = dict(self.data.columns)
        values["objective"]["labels"] = list(self.objective.labels)
        values["objective"]["dimensions"] = list(self.objective.dimensions)
        values["objective"]["layers"] = list(self.objective.layers)
        values["rl"] |= {"rewards": list(self.rl.rewards), "weights": list(self.rl.weights)}
        return values
