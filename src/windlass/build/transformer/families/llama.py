"""Llama 1-3, and the spelling of fields and tensors that most later decoders took over from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields, rope_of, rope_to_hf
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "llama"
ARCHITECTURE = "LlamaForCausalLM"


def from_hf(fields: Fields) -> TransformerConfig:
    bias = bool(fields.get("attention_bias"))
    return TransformerConfig(
        **shape_of(fields),
        **rope_of(fields),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=bool(fields.get("mlp_bias")),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return shape_to_hf(config) | {"attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}


def links(config: TransformerConfig) -> Iterator[Link]:
    yield from outer_links(config)
    for layer in range(config.layers):
        yield from attention_links(config, layer)
        yield from mlp_links(config, f"blocks.{layer}.mlp", f"model.layers.{layer}.mlp")


def renamed(name: str, config: TransformerConfig) -> str | None:
    """A bare model's checkpoint has no prefix; None for the RoPE frequencies that old ones carry."""
    if name.endswith("rotary_emb.inv_freq"):
        return None
    return f"model.{name}" if name.startswith(("embed_tokens.", "layers.", "norm.")) else name


# ---- what the relatives share ----------------------------------------------------------------------------------------


def shape_of(fields: Fields) -> dict[str, Any]:
    """The fields that all relatives spell alike."""
    heads = fields.size("num_attention_heads")
    return {
        "vocab_size": fields.size("vocab_size"),
        "hidden": fields.size("hidden_size"),
        "layers": fields.size("num_hidden_layers"),
        "heads": heads,
        "kv_heads": fields.get("num_key_value_heads", heads),
        "head_dim": fields.get("head_dim") or fields.split("hidden_size", heads),
        "ffn": fields.size("intermediate_size"),
        "context": fields.size("max_position_embeddings"),
        "norm_eps": float(fields.get("rms_norm_eps", 1e-6)),
        "tied": bool(fields.get("tie_word_embeddings", False)),
        "activation": fields.choice("hidden_act", "silu", ACTIVATIONS),
    }


def shape_to_hf(config: TransformerConfig) -> dict[str, Any]:
    """The same fields back, with RoPE in the spellings of transformers 4 and 5."""
    rope = rope_to_hf(config.rope_theta, config.rope_scaling, config.rotary_share)
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
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
        "hidden_act": names[config.activation],
        "attention_dropout": 0.0,
    }


def outer_links(config: TransformerConfig) -> Iterator[Link]:
    """Embedding, last norm and head."""
    yield same("embedding", "model.embed_tokens.weight")
    yield same("norm.weight", "model.norm.weight")
    if not config.tied:
        yield same("head.weight", "lm_head.weight")


def attention_links(config: TransformerConfig, layer: int, *, fused: bool = False) -> Iterator[Link]:
    """One layer's norms and attention; `fused`: query, key and value lie in one tensor (Phi-3)."""
    ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
    if config.norm_placement == "sandwich":
        norms = {
            "attention_norm": "input_layernorm",
            "attention_after_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_after_norm": "post_feedforward_layernorm",
        }
    else:
        norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "self_attn.q_norm", "attention.key_norm": "self_attn.k_norm"}
    for mine, yours in norms.items():
        yield same(f"{ours}.{mine}.weight", f"{theirs}.{yours}.weight")
    maps = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
    for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
        if fused:
            yield Link(
                tuple(f"{ours}.attention.{mine}.{kind}" for mine in maps), (f"{theirs}.self_attn.qkv_proj.{kind}",)
            )
        else:
            for mine, yours in maps.items():
                yield same(f"{ours}.attention.{mine}.{kind}", f"{theirs}.self_attn.{yours}.{kind}")
    for kind in ("weight", "bias") if config.output_bias else ("weight",):
        yield same(f"{ours}.attention.output.{kind}", f"{theirs}.self_attn.o_proj.{kind}")


def mlp_links(config: TransformerConfig, ours: str, theirs: str, *, fused: bool = False) -> Iterator[Link]:
    """One gated MLP; `fused`: gate and up lie in one tensor (Phi-3)."""
    for kind in ("weight", "bias") if config.mlp_bias else ("weight",):
        if fused:
            yield Link((f"{ours}.gate.{kind}", f"{ours}.up.{kind}"), (f"{theirs}.gate_up_proj.{kind}",))
        else:
            yield same(f"{ours}.gate.{kind}", f"{theirs}.gate_proj.{kind}")
            yield same(f"{ours}.up.{kind}", f"{theirs}.up_proj.{kind}")
        yield same(f"{ours}.down.{kind}", f"{theirs}.down_proj.{kind}")


def windows_of(fields: Fields, window: int | None, layer_types: list[str]) -> dict[str, Any]:
    """The fields window and pattern from one word per layer."""
    letters = {"sliding_attention": "L", "full_attention": "G"}
    if unknown := set(layer_types) - set(letters):
        raise fields.refused("layer_types", min(unknown))
    return {"window": window, "pattern": "".join(letters[kind] for kind in layer_types)}


def windows_to_hf(config: TransformerConfig) -> list[str]:
    """One word per layer."""
    return ["sliding_attention" if config.local(layer) else "full_attention" for layer in range(config.layers)]
