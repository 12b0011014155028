"""Mistral: Llama with a sliding window in every layer (arXiv 2310.06825)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama
from windlass.build.transformer.families.fields import Fields, rope_of

MODEL_TYPE = "mistral"
ARCHITECTURE = "MistralForCausalLM"

links, renamed = llama.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    fields.only("layer_types", None)
    window = fields.values.get("sliding_window", 4096)  # null says that there is none
    return TransformerConfig(**llama.shape_of(fields), **rope_of(fields), window=window)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return llama.shape_to_hf(config) | {"sliding_window": config.window}
