"""Qwen2-MoE and Qwen1.5-MoE: many small experts beside a gated one that every token visits (arXiv 2407.10671)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama, qwen2, qwen3_moe
from windlass.build.transformer.families.fields import Fields, rope_of

MODEL_TYPE = "qwen2_moe"
ARCHITECTURE = "Qwen2MoeForCausalLM"

links, renamed = qwen3_moe.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    windows: dict[str, Any] = {}
    if fields.get("use_sliding_window", False):
        # Unlike Qwen2's, the layers *before* max_window_layers have it, and of those every other one.
        first = fields.get("max_window_layers", 28)
        types = fields.get("layer_types") or [
            "full_attention" if i % 2 or i >= first else "sliding_attention"
            for i in range(fields.size("num_hidden_layers"))
        ]
        windows = llama.windows_of(fields, fields.get("sliding_window", 4096), types)
    shared = fields.get("shared_expert_intermediate_size", 5632)
    if shared < 1:  # its gate would stand in the checkpoint all the same
        raise fields.refused("shared_expert_intermediate_size", shared)
    return TransformerConfig(
        **llama.shape_of(fields),
        **rope_of(fields),
        **windows,
        qkv_bias=bool(fields.get("qkv_bias", True)),
        experts=qwen3_moe.experts_of(fields, count=60, active=4, width=1408, shared=shared),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return llama.shape_to_hf(config) | qwen2.windows_to_hf(config) | qwen3_moe.experts_to_hf(config) | {
        "qkv_bias": config.qkv_bias,
        "shared_expert_intermediate_size": config.experts.shared_ffn if config.experts else 0,
    }  # fmt: skip
