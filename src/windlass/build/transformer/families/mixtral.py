"""Mixtral: Mistral with experts in every layer (arXiv 2401.04088)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windlass.build.transformer.config import Experts, TransformerConfig
from windlass.build.transformer.families import llama
from windlass.build.transformer.families.fields import Fields, rope_of
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "mixtral"
ARCHITECTURE = "MixtralForCausalLM"

renamed = llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    experts = Experts(
        count=fields.get("num_local_experts", 8),
        active=fields.get("num_experts_per_tok", 2),
        ffn=fields.size("intermediate_size"),
    )
    window = fields.get("sliding_window")
    return TransformerConfig(**llama.shape_of(fields), **rope_of(fields, 1e6), window=window, experts=experts)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    experts = config.experts
    return llama.shape_to_hf(config) | {
        "sliding_window": config.window,
        "num_local_experts": experts.count if experts else 1,
        "num_experts_per_tok": experts.active if experts else 1,
        "intermediate_size": experts.ffn if experts else config.ffn,
    }


def links(config: TransformerConfig) -> Iterator[Link]:
    yield from llama.outer_links(config)
    for layer in range(config.layers):
        yield from llama.attention_links(config, layer)
        ours, theirs = f"blocks.{layer}.mlp", f"model.layers.{layer}.block_sparse_moe"
        yield same(f"{ours}.router.weight", f"{theirs}.gate.weight")
        yield from expert_links(config, ours, theirs, {"gate": "w1", "up": "w3", "down": "w2"})


def expert_links(config: TransformerConfig, ours: str, theirs: str, names: dict[str, str]) -> Iterator[Link]:
    """Checkpoints name each expert's matrices; here they are stacked."""
    assert config.experts is not None
    for mine, yours in names.items():
        each = tuple(f"{theirs}.experts.{index}.{yours}.weight" for index in range(config.experts.count))
        yield Link((f"{ours}.{mine}",), each)
