"""Which examples and which loss belong to which objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from windlass.build.tokenizer import Specials
from windlass.build.training.data.batches import CausalExamples, Examples
from windlass.build.training.data.masking import MaskedExamples
from windlass.build.training.data.pairs import PairExamples
from windlass.build.training.data.shard import Shard
from windlass.build.training.data.spans import SpanExamples, corruption, lengths
from windlass.build.training.objectives import Loss, causal, contrastive, masked, spans
from windlass.build.training.settings import ObjectiveKind, PretrainSettings

LOSSES: Mapping[ObjectiveKind, Callable[..., Loss]] = {
    "causal": causal,
    "masked": masked,
    "spans": spans,
    "contrastive": contrastive,
}
"""Each a pure function of model, batch and arithmetic."""


def examples_of(
    settings: PretrainSettings, context: int, shard: Shard, vocabulary: int, specials: Specials, seed: int
) -> Examples:
    """The examples of the settings' objective. Raises `InputError` when the tokenizer lacks a token that it needs."""
    asked, kind = settings.objective, settings.objective_kind
    usual: dict[str, Any] = {"isolate": settings.data.isolate, "seed": seed}
    if kind == "causal":
        return CausalExamples(shard, context, **usual)
    if kind == "masked":
        ordinary = np.setdiff1d(np.arange(vocabulary), list(specials.ids))
        return MaskedExamples(
            shard, context, share=asked.mask_share, mask=specials.need("mask"), ordinary=ordinary, **usual
        )
    if kind == "contrastive":
        return PairExamples(shard, context, pad=start_token(specials))
    length, _ = lengths(context, asked.mask_share, asked.span_length)
    _, count = corruption(length, asked.mask_share, asked.span_length)
    return SpanExamples(
        shard,
        context,
        share=asked.mask_share,
        span=asked.span_length,
        sentinels=specials.need_sentinels(count),
        end=specials.separator,
        start=start_token(specials),
        **usual,
    )


def start_token(specials: Specials) -> int:
    """What fills up short rows and starts a decoder's target: the pad token, as T5 has it, or else the separator."""
    return specials.separator if specials.pad is None else specials.pad
