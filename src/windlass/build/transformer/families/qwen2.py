"""Qwen2 and Qwen2.5: Llama with biases on query, key and value, and a window in the later layers (arXiv 2407.10671)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama
from windlass.build.transformer.families.fields import Fields, rope_of

MODEL_TYPE = "qwen2"
ARCHITECTURE = "Qwen2ForCausalLM"

links, renamed = llama.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    return TransformerConfig(**llama.shape_of(fields), **rope_of(fields), **windows_of(fields), qkv_bias=True)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return llama.shape_to_hf(config) | windows_to_hf(config)


def windows_of(fields: Fields) -> dict[str, Any]:
    """The window is off unless use_sliding_window says otherwise; then the layers from max_window_layers on have it."""
    if not fields.get("use_sliding_window", False):
        return {}
    first = fields.get("max_window_layers", 28)
    layers = range(fields.size("num_hidden_layers"))
    types = fields.get("layer_types") or ["sliding_attention" if i >= first else "full_attention" for i in layers]
    return llama.windows_of(fields, fields.get("sliding_window", 4096), types)


def windows_to_hf(config: TransformerConfig) -> dict[str, Any]:
    local = [layer for layer in range(config.layers) if config.local(layer)]
    return {
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
        "max_window_layers": min(local, default=config.layers),
        "layer_types": llama.windows_to_hf(config),
    }
