"""Llama 1-3, and the tensor names that most later decoders took over from it."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import Fields, rope_of, rope_to_hf
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"


def from_hf(fields: Fields) -> TransformerConfig:
    fields.only("hidden_act", "silu")
    bias = bool(fields.get("attention_bias"))
    return TransformerConfig(
        **shape_of(fields),
        **rope_of(fields, 10_000.0),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(fields.get("mlp_bias")),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return shape_to_hf(config) | {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def links(config: TransformerConfig) -> list[Link]:
    return outer_links(config) + [link for layer in range(config.layers) for link in block_links(config, layer)]


# ---- what the relatives share ----------------------------------------------------------------------------------------


def shape_of(fields: Fields) -> dict[str, Any]:
    """The fields that all relatives spell alike."""
    heads = fields.need("num_attention_heads")
    return {
        "vocab_size": fields.need("vocab_size"),
        "hidden": fields.need("hidden_size"),
        "layers": fields.need("num_hidden_layers"),
        "heads": heads,
        "kv_heads": fields.get("num_key_value_heads", heads),
        "head_dim": fields.get("head_dim", fields.need("hidden_size") // heads),
        "ffn": fields.need("intermediate_size"),
        "context": fields.need("max_position_embeddings"),
        "norm_eps": float(fields.get("rms_norm_eps", 1e-6)),
        "tied": bool(fields.get("tie_word_embeddings", False)),
    }


def shape_to_hf(config: TransformerConfig) -> dict[str, Any]:
    """The same fields back, with RoPE in the spellings of transformers 4 and 5."""
    rope = rope_to_hf(config.rope_theta, config.rope_scaling, config.rotary_share)
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "rope_scaling": rope if config.rope_scaling else None,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
    }


def outer_links(config: TransformerConfig) -> list[Link]:
    """Embedding, last norm and head."""
    found = [same("embedding", "model.embed_tokens.weight"), same("norm.weight", "model.norm.weight")]
    return found if config.tied else [*found, same("head.weight", "lm_head.weight")]


def block_links(config: TransformerConfig, layer: int) -> list[Link]:
    """One layer's norms, attention and MLP."""
    return attention_links(config, layer) + mlp_links(config, layer)


def attention_links(config: TransformerConfig, layer: int) -> list[Link]:
    ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
    maps = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    found = [
        same(f"{ours}.attention_norm.weight", f"{theirs}.input_layernorm.weight"),
        same(f"{ours}.mlp_norm.weight", f"{theirs}.post_attention_layernorm.weight"),
    ]
    for mine, yours in maps.items():
        found.append(same(f"{ours}.attention.{mine}.weight", f"{theirs}.self_attn.{yours}.weight"))
        if config.output_bias if mine == "output" else config.qkv_bias:
            found.append(same(f"{ours}.attention.{mine}.bias", f"{theirs}.self_attn.{yours}.bias"))
    if config.qk_norm:
        for mine, yours in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            found.append(same(f"{ours}.attention.{mine}.weight", f"{theirs}.self_attn.{yours}.weight"))
    return found


def mlp_links(config: TransformerConfig, layer: int) -> list[Link]:
    ours, theirs = f"blocks.{layer}.mlp", f"model.layers.{layer}.mlp"
    kinds = ("weight", "bias") if config.mlp_bias else ("weight",)
    return [same(f"{ours}.{p}.{kind}", f"{theirs}.{p}_proj.{kind}") for p in ("gate", "up", "down") for kind in kinds]
