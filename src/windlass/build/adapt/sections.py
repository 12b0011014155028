"""What a person may ask of a tuning, section by section as a recipe file has them.

Whatever is None follows from the rest, and is printed with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from windlass.build.training.settings import OptimizerSettings, RunSettings, ScheduleSettings
from windlass.core.errors import InputError

AdapterKind = Literal["none", "lora", "rslora", "dora", "ia3", "prompt", "prefix"]
ObjectiveKind = Literal[
    "sft", "continue", "distil", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "ppo",
    "classify", "regress", "tag", "extract", "rank", "embed",
]  # fmt: skip
Overlong = Literal["refuse", "drop", "cut"]

FITTING: Mapping[str, tuple[ObjectiveKind, ...]] = {
    "decoder": ("sft", "continue", "distil", "dpo", "kto", "orpo", "simpo", "reward", "grpo", "ppo"),
    "encoder": ("classify", "regress", "tag", "extract", "rank", "embed", "distil"),
    "encoder-decoder": ("sft",),
}
"""Which objectives train a base of which architecture."""


@dataclass(frozen=True, slots=True)
class BaseSettings:
    base: str = "model"
    """What is tuned: a model artifact, or a folder in Hugging Face layout."""
    adapter_from: str | None = None
    """An adapter of this base that is trained further, in its own shape: an artifact, or a folder as PEFT writes it."""
    template: str | None = None
    """How a conversation is written: `plain`, `chatml`, or a file with a Jinja template; None: as the base says."""
    new_tokens: tuple[str, ...] = ()
    """Tokens that the base's vocabulary lacks, such as the marks of a chat template. The base becomes one that has
    them, their rows of embedding and head the mean of the others, and they are trained, also beside an adapter."""
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
    tokens: tuple[str, ...] = ()
    """Tokens whose own rows of embedding and head are trained beside the adapter, which then holds these rows alone;
    those of `model.new_tokens` always are."""
    virtual_tokens: int = 20
    """Positions before every text, with `prompt` and `prefix`."""
    bits: int | None = None
    """What each weight of the frozen maps is kept in: 4 (NF4, as QLoRA has it) or 8; None: as activations are."""
    merge: bool = False
    """Store one model of base and adapter, instead of the adapter alone."""


@dataclass(frozen=True, slots=True)
class CurateSettings:
    """Which rows are not learned from. What evaluation sets hold goes too, where `data.evaluation` names some."""

    near: float | None = None
    """Similarity of its words from which a row repeats an earlier one, 0.8 for instance; None: repetitions stay."""
    pii: Literal["keep", "mask", "drop"] = "keep"
    """What happens to personal data: a placeholder takes its place, or the whole row goes."""
    quality: Literal["none", "light", "gopher", "fineweb"] = "none"
    """The rules for text that rows must pass; see `build/corpus/quality.py`."""
    min_chars: int = 0
    max_chars: int | None = None
    most: int | None = None
    """At most so many rows, those that are farthest from each other; None: all."""


@dataclass(frozen=True, slots=True)
class TuneDataSettings:
    dataset: str = "dataset"
    """What is learned from: a dataset artifact, or a file of rows (JSON lines, JSON, CSV, Parquet)."""
    evaluation: tuple[str, ...] = ()
    """What is evaluated on, as files of rows or dataset artifacts: rows that these hold too are not learned from."""
    curate: CurateSettings = field(default_factory=CurateSettings)
    replay: str | None = None
    """`continue`: old documents, such as the base has read, on which forgetting is measured and of which some are read
    again: rows with a `text`, or a corpus."""
    replay_share: float | None = None
    """`continue`: how much of what is trained on is old; None: 0.25. 0 only measures."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column that is called otherwise here, as in `label = "topic"`."""
    heldout: float = 0.1
    """Share of the examples that are measured and not trained on."""
    epochs: float = 3.0
    """How often each example is seen, where the schedule names neither steps nor minutes."""
    overlong: Overlong = "refuse"
    """Examples that are longer than the model reads, or than a row: an error, or left out and counted. With `cut` texts
    that are judged or embedded as a whole lose their end, and are counted too; what is written is never cropped."""
    unusable: Literal["refuse", "drop"] = "refuse"
    """Preferences between equal or empty answers, or answers to different prompts: refused, or left out and counted."""
    packing: bool = True
    """Several examples in one row, none of which sees another; nothing is cropped."""
    batch: int | None = None
    """Rows per step, on all processes together."""
    micro_batch: int | None = None
    """Rows in one forward pass."""


@dataclass(frozen=True, slots=True)
class TuneObjectiveSettings:
    kind: ObjectiveKind = "sft"
    labels: tuple[str, ...] = ()
    """Names of the classes or tags, in their order; empty: those that stand in the data."""
    temperature: float | None = None
    """`embed`: what cosines are divided by; None: 0.05. `distil`: what the logits of both models are divided by;
    None: 1."""
    dimensions: tuple[int, ...] = ()
    """Of `embed`: further lengths to which its vectors may be cut, such as 64 and 128."""
    listwise: bool = True
    """Of `rank`, where a row holds several documents: they compete, instead of being judged each by itself."""
    loss: Literal["sigmoid", "hinge", "ipo"] | None = None
    """Of `dpo`; None: sigmoid."""
    beta: float | None = None
    """`dpo`, `kto`: how dear it is to leave the base; `orpo`: weight of the odds; `simpo`: how sharply it judges;
    `distil` with `jsd`: share of the teacher in the mixture. None: 0.1, 2 for `simpo`, 0.5 for `distil`."""
    margin: float | None = None
    """`simpo`: how far beta times the log-probabilities a token shall differ; None: 1."""
    label_smoothing: float | None = None
    """`dpo`, `simpo`, `reward`: share of the preferences that are taken to be wrong; None: 0."""
    liked_weight: float | None = None
    """`kto`: of a liked answer, where another has weight 1; None: so that both kinds weigh the same altogether."""
    teacher: str | None = None
    """`distil`: the decoder that is learned from, or by an encoder the classifier of texts: an artifact or a folder in
    Hugging Face layout."""
    divergence: Literal["forward", "reverse", "jsd", "sorted"] | None = None
    """`distil`: how the distance from the teacher is measured; None: forward, the Kullback-Leibler divergence, or
    `sorted`, the only one between different vocabularies, where the teacher has other tokens."""
    label_weight: float | None = None
    """`distil`: share of the ordinary loss, of the tokens or labels that stand in the rows; None: 0.5, or 0 with
    `own_share` and where rows have no labels."""
    hidden_weight: float | None = None
    """`distil`: of the distance between what layers of both models put out, beside the rest of the loss; None: 0."""
    hidden_distance: Literal["mse", "cosine"] | None = None
    """`distil`: how that is measured; None: mse."""
    layers: tuple[str, ...] = ()
    """`distil` with `hidden_weight`: which layer learns from which, as `student:teacher` counted from 1; empty: each
    from the one at the same height."""
    own_share: float | None = None
    """`distil`: of the rows, those in which the student answers itself, anew in each step, and hears what the teacher
    would have said at each token; `rl.answer_tokens` and `rl.temperature` are for its answers. None: 0."""
    answers: Literal["rows", "teacher"] | None = None
    """`distil`: whose answers are learned; `teacher`: it answers every row before the training, as `rl.answer_tokens`
    and `rl.temperature` say. None: those of the rows."""


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
    watts: float = 15.0
    """Assumed for one core at work with its share of the machine; the estimate of energy rests on it."""
    price_per_hour: float | None = None
    """Of the machine, in whatever currency; None: no cost is told."""


@dataclass(frozen=True, slots=True)
class RangeSettings:
    """What a search may choose for one setting: something between two numbers, or one of several values."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    """Whether twice as much is as far as half as much."""
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.choices:
            if self.low is not None or self.high is not None:
                raise InputError("A range of the search has both choices and bounds.", "Leave one of the two out.")
        elif self.low is None or self.high is None or not self.low <= self.high or (self.log and self.low <= 0):
            raise InputError(
                f"A range of the search goes from {self.low} to {self.high}.",
                "Give low and high, above 0 for a logarithmic one, or choices.",
            )

    @property
    def extremes(self) -> tuple[Any, ...]:
        """Values that have to make sense if the whole range does."""
        return self.choices or (self.low, self.high)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"choices": list(self.choices)}

    def __str__(self) -> str:
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"{self.low} to {self.high}{', by its logarithm' if self.log else ''}"
