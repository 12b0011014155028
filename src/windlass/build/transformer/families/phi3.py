"""Phi-3 and Phi-4-mini: Llama with fused tensors, LongRoPE and perhaps a window (arXiv 2404.14219)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama
from windlass.build.transformer.families.fields import Fields, rope_of
from windlass.build.transformer.families.links import Link

MODEL_TYPE = "phi3"
ARCHITECTURE = "Phi3ForCausalLM"

renamed = llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    return TransformerConfig(**llama.shape_of(fields), **rope_of(fields), window=fields.get("sliding_window"))


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    found = llama.shape_to_hf(config) | {"sliding_window": config.window}
    if config.rope_scaling is not None:
        found["original_max_position_embeddings"] = config.rope_scaling.original_context
    return found


def links(config: TransformerConfig) -> Iterator[Link]:
    yield from llama.outer_links(config)
    for layer in range(config.layers):
        yield from llama.attention_links(config, layer, fused=True)
        yield from llama.mlp_links(config, f"blocks.{layer}.mlp", f"model.layers.{layer}.mlp", fused=True)
