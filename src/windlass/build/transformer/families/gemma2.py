"""Gemma 2: norms on both sides of each part, every other layer local, capped scores and logits (arXiv 2408.00118)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families import llama
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields, rope_of

MODEL_TYPE = "gemma2"
ARCHITECTURE = "Gemma2ForCausalLM"

links, renamed = llama.links, llama.renamed


def from_hf(fields: Fields) -> TransformerConfig:
    return TransformerConfig(
        **gemma_of(fields),
        **rope_of(fields),
        **windows_of(fields, every=2),
        attention_cap=fields.values.get("attn_logit_softcapping", 50.0),  # null says that there is none
        logit_cap=fields.values.get("final_logit_softcapping", 30.0),
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return gemma_to_hf(config) | {
        "attn_logit_softcapping": config.attention_cap,
        "final_logit_softcapping": config.logit_cap,
    }


# ---- what Gemma 2 and 3 share ----------------------------------------------------------------------------------------


def gemma_of(fields: Fields) -> dict[str, Any]:
    fields.only("use_bidirectional_attention", False)
    bias = bool(fields.get("attention_bias"))
    return llama.shape_of(fields) | {
        "head_dim": fields.get("head_dim", 256),
        "tied": bool(fields.get("tie_word_embeddings", True)),
        "activation": fields.choice("hidden_activation", "gelu_pytorch_tanh", ACTIVATIONS),
        "embedding_scale": fields.size("hidden_size") ** 0.5,
        "attention_scale": float(fields.get("query_pre_attn_scalar", 256)) ** -0.5,
        "norm_placement": "sandwich",
        "norm_offset": True,
        "qkv_bias": bias,
        "output_bias": bias,
    }


def gemma_to_hf(config: TransformerConfig) -> dict[str, Any]:
    found = llama.shape_to_hf(config)
    scalar = round(config.score_scale**-2, 6)
    return found | {
        "hidden_activation": found["hidden_act"],
        "query_pre_attn_scalar": int(scalar) if scalar == int(scalar) else scalar,
        "attention_bias": config.qkv_bias,
        "sliding_window": config.window,
        "layer_types": llama.windows_to_hf(config),
    }


def windows_of(fields: Fields, every: int) -> dict[str, Any]:
    """Unless layer_types says otherwise, each `every`-th layer sees everything and the others their window."""
    layers = range(fields.size("num_hidden_layers"))
    types = fields.get("layer_types") or ["sliding_attention" if (i + 1) % every else "full_attention" for i in layers]
    return llama.windows_of(fields, fields.get("sliding_window", 4096), types)
