"""What a person may ask of a pre-training run, section by section as a recipe file has them.

Whatever is None follows from the rest (see `sizes`), and is printed with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from windlass.core.errors import InputError

Architecture = Literal["decoder", "encoder", "encoder-decoder"]
ObjectiveKind = Literal["causal", "masked", "spans", "contrastive"]

FITTING: Mapping[Architecture, tuple[ObjectiveKind, ...]] = {
    "decoder": ("causal",),
    "encoder": ("masked", "contrastive"),
    "encoder-decoder": ("spans",),
}
"""Which objectives can train which architecture; the first is the default."""


@dataclass(frozen=True, slots=True)
class ModelSettings:
    architecture: Architecture = "decoder"
    depth: int = 4
    """The dial: number of layers, from which width, heads, batch and learning rates are derived."""
    context: int | None = None
    """Tokens that the model reads."""
    init_from: str | None = None
    """Go on from these weights instead of random ones: a model artifact or a folder in Hugging Face layout, whose
    shape then takes the place of depth and context."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TransformerConfig` to set otherwise than derived, as in `qk_norm = true`."""


@dataclass(frozen=True, slots=True)
class DataSettings:
    corpus: str = "corpus"
    """The artifact to train on, where the command line names none."""
    tokenizer: str = "tokenizer"
    kinds: tuple[str, ...] | None = None
    """Kinds of documents to train on; None: all but docstrings, which the source holds already."""
    isolate: bool = False
    """Whether attention stays inside each document of a window, with positions counted from its beginning."""
    batch: int | None = None
    """Sequences per step, on all processes together."""
    micro_batch: int | None = None
    """Sequences in one forward pass; the gradients of a step's passes are added up. Less memory, the same step."""


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    kind: ObjectiveKind | None = None
    """None: the one that is usual for the architecture."""
    mask_share: float = 0.15
    """Share of the tokens that masked and span training hide."""
    span_length: float = 3.0
    """Mean number of tokens in a hidden span."""
    temperature: float = 0.05
    """Of the contrastive softmax."""
    routing_weight: float = 0.01
    """Weight of the load-balancing loss of a mixture of experts."""


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    kind: Literal["muon", "adamw", "adamw8"] = "muon"
    """`muon`: Muon for the matrices of the blocks, AdamW for the rest; `adamw8`: AdamW with moments in 8 bits."""
    matrix_rate: float | None = None
    """Peak learning rate of the matrices inside the blocks."""
    embedding_rate: float | None = None
    head_rate: float | None = None
    """Also of norms and biases."""
    momentum: float = 0.95
    """Of Muon."""
    betas: tuple[float, float] = (0.8, 0.95)
    """Of AdamW."""
    eps: float = 1e-10
    """Of AdamW: what is added to the root of the second moment."""
    weight_decay: float = 0.0
    """Of the matrices inside the blocks."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    ema: float = 0.0
    """Decay a step of an average of the weights, which is then what is evaluated and stored; 0: none."""


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    kind: Literal["wsd", "cosine"] = "wsd"
    minutes: float | None = None
    """Training takes no longer, compiling included; reading the text before it and scoring the held-out text after it
    come on top. Without `steps`: default 3."""
    steps: int | None = None
    """A fixed number of optimizer steps instead of a time budget: the exactly repeatable mode."""
    warmup_steps: int | None = None
    """While the rates rise from zero."""
    cooldown: float = 0.6
    """WSD: share of the run during which the rates fall linearly."""
    floor: float = 0.0
    """Share of the peak rate at which the fall ends."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    name: str = "model"
    seed: int = 0
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the activations. Weights, gradients and optimizer stay in float32."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """`torch.compile`; auto uses it when there is a C++ compiler and time enough to earn its cost back."""
    recompute: bool = False
    """Activation checkpointing: keep only each block's input and compute the rest again when it is needed."""
    checkpoint_seconds: float = 20.0
    checkpoint_steps: int | None = None
    """Save every so many steps instead of by the clock."""
    keep_checkpoints: int = 2
    """The newest ones that stay. With two, one that a failing disk damaged does not cost the run."""
    keep_best: bool = False
    """Keep the checkpoint of the best measurement too, and store its weights as the model in the end."""
    evaluate_seconds: float | None = None
    """Measure on held-out text that often during training; None and no `evaluate_steps`: at the end only."""
    evaluate_steps: int | None = None
    evaluate_tokens: int = 32_768
    """Of held-out text, for each measurement during training; the last one takes all."""
    best_by: str | None = None
    """The held-out figure by which a measurement is better, such as `macro_f1`: for `patience`, `keep_best` and a
    search; None: the loss."""
    patience: int | None = None
    """Stop when so many measurements in a row brought no better one."""


@dataclass(frozen=True, slots=True)
class PretrainSettings:
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        fitting = FITTING[self.model.architecture]
        if self.objective_kind not in fitting:
            raise InputError(
                f"objective.kind is {self.objective_kind!r}, which does not train a model of architecture "
                f"{self.model.architecture!r}.",
                f"Use {' or '.join(map(repr, fitting))}, or another architecture.",
            )
        if self.objective_kind == "contrastive" and self.data.micro_batch is not None:
            raise InputError(
                "data.micro_batch is set, but the wrong answers of a contrastive loss are the other pairs of a pass.",
                "Leave it out, or make data.batch smaller.",
            )
        check_ends(self.schedule, self.run)
        check_ranges(self)
        if not 0 < self.objective.mask_share < 0.9:
            raise InputError(
                f"objective.mask_share is {self.objective.mask_share:g}, but must be between 0 and 0.9.",
                "0.15 is usual.",
            )

    @property
    def objective_kind(self) -> ObjectiveKind:
        return self.objective.kind or FITTING[self.model.architecture][0]

    def as_json(self) -> dict[str, Any]:
        """Nested tables as JSON brings them back."""
        values = asdict(self)
        values["data"]["kinds"] = None if self.data.kinds is None else list(self.data.kinds)
        values["optimizer"]["betas"] = list(self.optimizer.betas)
        values["model"]["config"] = dict(self.model.config)
        return values


def budget_seconds(schedule: ScheduleSettings) -> float | None:
    """The time budget, None when the number of steps is fixed."""
    if schedule.steps is not None:
        return None
    return 60.0 * (3.0 if schedule.minutes is None else schedule.minutes)


def dtype_of(run: RunSettings) -> torch.dtype | None:
    """Of the activations; None: that of the weights."""
    return torch.bfloat16 if run.precision == "bf16" else None


def check_ends(schedule: ScheduleSettings, run: RunSettings) -> None:
    """Raises `InputError` where it is not plain when the training ends."""
    if schedule.minutes is not None and schedule.steps is not None:
        raise InputError(
            "Both schedule.minutes and schedule.steps are given.", "Give the one that should end the training."
        )
    if run.evaluate_seconds is None and run.evaluate_steps is None:
        for name in ("patience", "keep_best"):
            if getattr(run, name):
                raise InputError(
                    f"run.{name} is set, but nothing is measured during training.", "Set run.evaluate_steps too."
                )


_AT_LEAST_ONE = (
    "model.depth", "model.context", "data.batch", "data.micro_batch", "data.epochs", "schedule.steps",
    "run.checkpoint_steps", "run.keep_checkpoints", "run.evaluate_steps", "run.evaluate_tokens", "run.patience",
    "objective.span_length",
)  # fmt: skip
_ABOVE_ZERO = (
    "schedule.minutes", "objective.temperature", "optimizer.clip", "optimizer.eps", "run.checkpoint_seconds",
    "run.evaluate_seconds",
)  # fmt: skip
_RATES = ("optimizer.matrix_rate", "optimizer.embedding_rate", "optimizer.head_rate")
_HIGHEST_RATE = 10.0
"""About what each number moves by in a step: weights are well below 1."""
_SHARES = ("objective.mask_share", "schedule.cooldown", "schedule.floor", "optimizer.momentum", "optimizer.ema")
_NOT_NEGATIVE = ("schedule.warmup_steps", "optimizer.weight_decay", "objective.routing_weight", "run.seed")


def check_ranges(settings: Any) -> None:
    """Raises `InputError` naming the first number, in whatever sections and keys the settings have, that makes no
    sense."""

    def refuse(names: tuple[str, ...], bad: Callable[[Any], bool], rule: str) -> None:
        for name in names:
            section, _, key = name.partition(".")
            value = getattr(getattr(settings, section, None), key, None)
            if value is not None and bad(value):
                raise InputError(f"{name} is {value:g}, but must be {rule}.")

    refuse(_AT_LEAST_ONE, lambda value: value < 1, "at least 1")
    refuse(_ABOVE_ZERO, lambda value: not 0 < value < float("inf"), "more than 0")
    highest = f"more than 0 and at most {_HIGHEST_RATE:g}: each weight moves by about that in a step"
    refuse(_RATES, lambda value: not 0 < value <= _HIGHEST_RATE, highest)
    refuse(_SHARES, lambda value: not 0 <= value <= 1, "between 0 and 1")
    refuse(_NOT_NEGATIVE, lambda value: value < 0, "at least 0")
    if settings.optimizer.ema == 1:
        raise InputError("optimizer.ema is 1, an average that never moves.", "0.999 is usual for long runs, 0 is none.")
