"""What contradicts itself in the settings of a tuning, refused by the names of the keys before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from windlass.build.adapt.sections import (
    AdapterKind,
    AdapterSettings,
    ObjectiveKind,
    TuneDataSettings,
    TuneObjectiveSettings,
)
from windlass.core.errors import InputError

_USES: dict[str, tuple[ObjectiveKind, ...]] = {
    "loss": ("dpo",),
    "beta": ("dpo", "kto", "orpo", "simpo", "distil"),
    "temperature": ("embed", "distil"),
    "teacher": ("distil",),
    "divergence": ("distil",),
    **dict.fromkeys(
        ("label_weight", "hidden_weight", "hidden_distance", "own_share", "answers"),
        ("distil",),
    ),
    "margin": ("simpo",),
    "label_smoothing": ("dpo", "simpo", "reward"),
    "liked_weight": ("kto",),
}
"""Which objectives a key is for."""

_RANGES = {
    "label_smoothing": (0.0, 0.5),
    "margin": (0.0, math.inf),
    "label_weight": (0.0, 1.0 + 1e-9),
    "hidden_weight": (0.0, math.inf),
    "own_share": (0.0, 1.0 + 1e-9),
}
"""From, and less than; other keys are only more than 0."""

_CUTS: tuple[ObjectiveKind, ...] = ("classify", "regress", "tag", "rank", "embed")
"""Objectives that learn something right of a text's beginning alone."""

_HEEDED: dict[str, tuple[AdapterKind, ...]] = {
    "dropout": ("lora", "rslora", "dora"),
    "targets": ("lora", "rslora", "dora", "ia3", "none"),
    "layers": ("lora", "rslora", "dora", "ia3", "none"),
    "also": ("lora", "rslora", "dora", "ia3"),
    "bits": ("lora", "rslora", "dora"),
    "tokens": ("lora", "rslora", "dora"),
}
"""Settings that would mean nothing with the other kinds."""


def check_objective(objective: TuneObjectiveSettings) -> None:
    for key, kinds in _USES.items():
        value = getattr(objective, key)
        if value is not None and objective.kind not in kinds:
            raise InputError(
                f"objective.{key} is set, but objective.kind '{objective.kind}' has no use for it.",
                f"It is for {', '.join(kinds)}.",
            )
        if isinstance(value, float | int):
            least, most = _RANGES.get(key, (1e-9, math.inf))
            if not least <= value < most:
                raise InputError(
                    f"objective.{key} is {value:g}, but must be {least:g} or more, and less than {most:g}."
                )
    if objective.kind == "distil":
        _check_lesson(objective)
    elif objective.layers:
        raise InputError(
            f"objective.layers is set, but objective.kind '{objective.kind}' has no use for it.", "It is for distil."
        )


def _check_lesson(objective: TuneObjectiveSettings) -> None:
    if objective.teacher is None:
        raise InputError("objective.kind is 'distil', but objective.teacher names nobody.", "Name a model.")
    if objective.beta is not None and not (objective.divergence == "jsd" and objective.beta < 1):
        raise InputError(
            f"objective.beta is {objective.beta:g}, but must be the teacher's share of the mixture of 'jsd'.",
            "Set objective.divergence to 'jsd' and beta to less than 1, or leave beta out.",
        )
    if not objective.hidden_weight and (objective.layers or objective.hidden_distance):
        raise InputError(
            "objective.layers and hidden_distance are about what layers put out, but objective.hidden_weight is not "
            "set.",
            "Set it to 1 for instance, or leave them out.",
        )
    if objective.label_weight == 1 and (objective.answers != "teacher" or objective.hidden_weight):
        raise InputError(
            "objective.label_weight is 1, so that nothing of the teacher is learned.",
            "Make it less than 1; with objective.answers 'teacher' its answers may be all that is learned.",
        )
    if objective.own_share and objective.label_weight:
        raise InputError(
            f"objective.own_share is {objective.own_share:g} and label_weight {objective.label_weight:g}: a student "
            "that learns what it said itself learns nothing.",
            "Leave label_weight out.",
        )
    if objective.own_share and objective.answers == "teacher":
        raise InputError(
            "objective.own_share and objective.answers 'teacher' both say who answers.", "Leave one of them out."
        )


def check_data(data: TuneDataSettings, kind: ObjectiveKind) -> None:
    _check_replay(data, kind)
    if not 0 <= data.heldout < 1:
        raise InputError(f"data.heldout is {data.heldout:g}, but must be at least 0 and less than 1.")
    near, most = data.curate.near, data.curate.most
    if near is not None and not 0.5 <= near <= 1:
        raise InputError(f"data.curate.near is {near:g}, but must lie between 0.5 and 1.", "0.8 is usual.")
    if most is not None and most < 2:
        raise InputError(f"data.curate.most is {most}, but some rows are trained on and others measured.")
    if data.overlong == "cut" and kind not in _CUTS:
        raise InputError(
            f"data.overlong is 'cut', but objective.kind '{kind}' crops nothing: "
            + (
                "it reads long texts through several windows."
                if kind == "extract"
                else "half an answer teaches to stop, or to go on, in the wrong place."
            ),
            "Choose 'drop', which leaves such examples out and counts them, or 'refuse'.",
        )


def _check_replay(data: TuneDataSettings, kind: ObjectiveKind) -> None:
    if kind != "continue":
        for key in ("replay", "replay_share"):
            if getattr(data, key) is not None:
                raise InputError(
                    f"data.{key} is set, but objective.kind '{kind}' has no use for it.", "It is for continue."
                )
    elif data.replay is None:
        raise InputError(
            "objective.kind is 'continue', but data.replay names no old documents, on which forgetting is measured.",
            "Name text of the kind that the base knows; with data.replay_share=0 none of it is trained on.",
        )
    elif not 0 <= (data.replay_share or 0.0) < 1:
        raise InputError(f"data.replay_share is {data.replay_share:g}, but must be at least 0 and less than 1.")


def check_adapter(adapter: AdapterSettings) -> None:
    if adapter.rank < 1 or not adapter.alpha > 0 or not 0 <= adapter.dropout < 1 or adapter.virtual_tokens < 1:
        raise InputError(
            f"adapter.rank is {adapter.rank}, alpha {adapter.alpha:g}, dropout {adapter.dropout:g}, virtual_tokens "
            f"{adapter.virtual_tokens}.",
            "Rank and virtual_tokens are at least 1, alpha more than 0, the dropout at least 0 and less than 1.",
        )
    if adapter.bits not in (None, 4, 8):
        raise InputError(f"adapter.bits is {adapter.bits}.", "Choose 4 or 8, or leave it out.")
    if adapter.merge and adapter.bits is not None:
        raise InputError(
            f"adapter.merge is on, but adapter.bits is {adapter.bits}, and a merge may lose what was learned.",
            "Leave merge out; then `windlass adapters merge` measures the error of the merge, and refuses a bad one.",
        )
    if adapter.merge and adapter.kind in ("prompt", "prefix"):
        raise InputError(
            f"adapter.merge is on, but adapter.kind '{adapter.kind}' is what stands before each text, and no weight.",
            "Leave merge out: it is stored as an adapter.",
        )
    for setting, kinds in _HEEDED.items():
        if (asked := getattr(adapter, setting)) and adapter.kind not in kinds:
            raise InputError(
                f"adapter.{setting} is {asked!r}, which adapter.kind '{adapter.kind}' does not heed.",
                f"Leave it out, or choose one of: {', '.join(kinds)}.",
            )


def check_tokens(adapter: AdapterSettings, new: Sequence[str], kind: ObjectiveKind) -> None:
    """New tokens that nobody trains would stay what they begin as."""
    if len(set(new)) < len(new) or not all(new):
        raise InputError(f"model.new_tokens is {list(new)}, with a token that is empty or named twice.")
    whole = adapter.kind == "none" and not adapter.targets and not adapter.layers
    named = any(name in ("embedding", "*") for name in (*adapter.also, *adapter.targets))
    if new and not whole and not named and adapter.kind not in _HEEDED["tokens"]:
        raise InputError(
            f"model.new_tokens names {new[0]!r}, but nothing would train it with adapter.kind '{adapter.kind}'.",
            f"Choose one of {', '.join(_HEEDED['tokens'])}, or name 'embedding' in adapter.also or adapter.targets.",
        )
    if (new or adapter.tokens) and kind in ("grpo", "ppo"):
        raise InputError(
            f"objective.kind is '{kind}', beside which rows of tokens cannot be trained.",
            "Teach the base its new tokens by 'sft' first, and merge them.",
        )
