"""Qwen3: Qwen2 with a norm on each head of queries and keys in place of the biases (arXiv 2505.09388)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama, qwen2
from windlass.build.transformer.families.fields import Fields, rope_of

MODEL_TYPE = "qwen3"
ARCHITECTURE = "Qwen3ForCausalLM"

links, renamed = llama.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    shape = llama.shape_of(fields) | {"head_dim": fields.get("head_dim", 128)}
    bias = bool(fields.get("attention_bias"))
    windows = qwen2.windows_of(fields)
    return TransformerConfig(**shape, **rope_of(fields), **windows, qk_norm=True, qkv_bias=bias, output_bias=bias)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return llama.shape_to_hf(config) | qwen2.windows_to_hf(config) | {"attention_bias": config.qkv_bias}
