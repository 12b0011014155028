"""What a person may ask of a tuning, section by section as a recipe file has them.

Whatever is None follows from the rest, and is printed with its reason.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from windlass.build.training.settings import (
    OptimizerSettings,
    RunSettings,
    ScheduleSettings,
    check_ends,
    check_ranges,
)
from windlass.core.errors import InputError

AdapterKind = Literal["none", "lora", "rslora", "dora", "ia3", "prompt", "prefix"]
ObjectiveKind = Literal["sft"]


@dataclass(frozen=True, slots=True)
class BaseSettings:
    base: str = "model"
    """What is tuned: a model artifact, or a folder in Hugging Face layout."""
    adapter_from: str | None = None
    """An adapter of this base that is trained further, in its own shape: an artifact, or a folder as PEFT writes it."""
    context: int | None = None
    """Tokens of one row; None: as many as the longest example has, and at most what the model reads."""


@dataclass(frozen=True, slots=True)
class AdapterSettings:
    kind: AdapterKind = "lora"
    """`lora`: two thin matrices beside each of the base's, which stay as they are; `rslora`: the same for large ranks;
    `dora`: the lengths of the rows too; `ia3`: only a factor for each key, value and inner activation; `prompt` and
    `prefix`: positions before every text, by what the first layer reads there or by all layers' keys and values;
    `none`: all weights are trained."""
    rank: int = 16
    alpha: float = 32.0
    """What the thin matrices add is multiplied by alpha / rank; `rslora`: by alpha / sqrt(rank)."""
    dropout: float = 0.0
    """Share of the inputs of the thin matrices that are left out in each pass."""
    targets: tuple[str, ...] = ()
    """Which maps of the blocks, by name (query, key, value, output, gate, up, down) or by patterns of whole names, such
    as `blocks.0.*`; empty: all, or key, value and down for `ia3`. With `none`: which parameters, such as `*.bias`."""
    layers: str = ""
    """Only in these layers: `last 2`, `first 2`, or numbers from 0 such as `0,4-7`; empty: in all."""
    also: tuple[str, ...] = ()
    """What of the base is trained as it is beside the adapter: `embedding`, `head`, or norms such as `*.mlp_norm.*`."""
    virtual_tokens: int = 20
    """Positions before every text, with `prompt` and `prefix`."""
    merge: bool = False
    """Store one model of base and adapter, instead of the adapter alone."""


@dataclass(frozen=True, slots=True)
class TuneDataSettings:
    dataset: str = "dataset"
    """What is learned from: a dataset artifact, or a file of rows (JSON lines, JSON, CSV, Parquet)."""
    heldout: float = 0.1
    """Share of the examples that are measured and not trained on."""
    epochs: float = 3.0
    """How often each example is seen, where the schedule names neither steps nor minutes."""
    packing: bool = True
    """Several examples in one row, none of which sees another; nothing is cropped."""
    batch: int | None = None
    """Rows per step, on all processes together."""
    micro_batch: int | None = None
    """Rows in one forward pass."""


@dataclass(frozen=True, slots=True)
class TuneObjectiveSettings:
    kind: ObjectiveKind = "sft"


@dataclass(frozen=True, slots=True)
class TuneOptimizerSettings(OptimizerSettings):
    kind: Literal["muon", "adamw", "adamw8"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class TuneScheduleSettings(ScheduleSettings):
    kind: Literal["wsd", "cosine"] = "cosine"


@dataclass(frozen=True, slots=True)
class TuneRunSettings(RunSettings):
    name: str = "tuned"


@dataclass(frozen=True, slots=True)
class TuneSettings:
    model: BaseSettings = field(default_factory=BaseSettings)
    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    data: TuneDataSettings = field(default_factory=TuneDataSettings)
    objective: TuneObjectiveSettings = field(default_factory=TuneObjectiveSettings)
    optimizer: TuneOptimizerSettings = field(default_factory=TuneOptimizerSettings)
    schedule: TuneScheduleSettings = field(default_factory=TuneScheduleSettings)
    run: TuneRunSettings = field(default_factory=TuneRunSettings)

    def __post_init__(self) -> None:
        check_ends(self.schedule, self.run)
        check_ranges(self)
        if not 0 <= self.data.heldout < 1:
            raise InputError(f"data.heldout is {self.data.heldout:g}, but must be at least 0 and less than 1.")
        _check(self.adapter)

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
        for field_ in ("targets", "also"):
            values["adapter"][field_] = list(values["adapter"][field_])
        return values


_RATES: dict[AdapterKind, float] = {"none": 2e-5, "ia3": 3e-3, "prompt": 1e-2, "prefix": 1e-2}


def _check(adapter: AdapterSettings) -> None:
    if adapter.rank < 1 or not adapter.alpha > 0 or not 0 <= adapter.dropout < 1 or adapter.virtual_tokens < 1:
        raise InputError(
            f"adapter.rank is {adapter.rank}, alpha {adapter.alpha:g}, dropout {adapter.dropout:g}, virtual_tokens "
            f"{adapter.virtual_tokens}.",
            "Rank and virtual_tokens are at least 1, alpha more than 0, the dropout at least 0 and less than 1.",
        )
    if adapter.merge and adapter.kind in ("prompt", "prefix"):
        raise InputError(
            f"adapter.merge is on, but adapter.kind '{adapter.kind}' is what stands before each text, and no weight.",
            "Leave merge out: it is stored as an adapter.",
        )
