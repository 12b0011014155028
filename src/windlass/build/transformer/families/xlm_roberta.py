"""XLM-RoBERTa: RoBERTa in a hundred languages, under names of its own (arXiv 1911.02116)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import roberta
from windlass.build.transformer.families.fields import Fields

MODEL_TYPE = "xlm-roberta"
ARCHITECTURE = "XLMRobertaForMaskedLM"

_HEADLESS = "XLMRobertaModel"

links, renamed = roberta.links, roberta.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    return roberta.shape_of(fields, _HEADLESS)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return roberta.shape_to_hf(config, ARCHITECTURE, _HEADLESS)
