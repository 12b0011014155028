"""Qwen3-MoE: Qwen3 with many small experts; some layers may stay dense (arXiv 2505.09388)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.families import llama, mixtral
from windlass.build.transformer.families.fields import Fields, rope_of
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "qwen3_moe"
ARCHITECTURE = "Qwen3MoeForCausalLM"

renamed = llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    bias = bool(fields.get("attention_bias"))
    window = fields.get("sliding_window", 4096) if fields.get("use_sliding_window", False) else None
    return TransformerConfig(
        **llama.shape_of(fields),
        **rope_of(fields),
        window=window,
        qk_norm=True,
        qkv_bias=bias,
        output_bias=bias,
        experts=experts_of(fields, count=128, active=8, width=768),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return llama.shape_to_hf(config) | experts_to_hf(config) | {
        "attention_bias": config.qkv_bias,
        "use_sliding_window": config.window is not None,
        "sliding_window": config.window,
    }  # fmt: skip


def links(config: TransformerConfig) -> Iterator[Link]:
    yield from llama.outer_links(config)
    for layer in range(config.layers):
        yield from llama.attention_links(config, layer)
        yield from feed_links(config, layer)


# ---- what the Qwen mixtures share ------------------------------------------------------------------------------------


def experts_of(fields: Fields, count: int, active: int, width: int, shared: int = 0) -> Experts:
    """The defaults differ between Qwen2-MoE and Qwen3-MoE."""
    return Experts(
        count=fields.get("num_experts", fields.get("num_local_experts", count)),
        active=fields.get("num_experts_per_tok", active),
        ffn=fields.get("moe_intermediate_size", width),
        normalise=bool(fields.get("norm_topk_prob", False)),
        shared_ffn=shared,
        every=fields.get("decoder_sparse_step", 1),
        dense_layers=tuple(fields.get("mlp_only_layers", ())),
    )


def experts_to_hf(config: TransformerConfig) -> dict[str, Any]:
    experts = config.experts or Experts(count=1, active=1, ffn=config.ffn)
    return {
        "num_experts": experts.count,
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.ffn,
        "norm_topk_prob": experts.normalise,
        "decoder_sparse_step": experts.every,
        "mlp_only_layers": list(experts.dense_layers),
    }


def feed_links(config: TransformerConfig, layer: int) -> Iterator[Link]:
    """Experts, router and shared expert, or the plain MLP of a dense layer."""
    ours, theirs = f"blocks.{layer}.mlp", f"model.layers.{layer}.mlp"
    if config.experts is None or not config.sparse(layer):
        yield from llama.mlp_links(config, ours, theirs)
        return
    yield same(f"{ours}.router.weight", f"{theirs}.gate.weight")
    names = {part: f"{part}_proj" for part in ("gate", "up", "down")}
    yield from mixtral.expert_links(config, ours, theirs, names)
    if config.experts.shared_ffn:
        yield from llama.mlp_links(config, f"{ours}.shared", f"{theirs}.shared_expert")
        yield same(f"{ours}.shared_gate.weight", f"{theirs}.shared_expert_gate.weight")
