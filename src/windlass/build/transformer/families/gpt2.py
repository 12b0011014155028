"""GPT-2: learned positions, LayerNorm, a plain GELU MLP, biases everywhere, a tied head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "gpt2"
ARCHITECTURE = "GPT2LMHeadModel"


def from_hf(fields: Fields) -> TransformerConfig:
    for key, known in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        fields.only(key, known)
    fields.only("add_cross_attention", False)
    hidden, heads = fields.size("n_embd"), fields.size("n_head")
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        hidden=hidden,
        layers=fields.size("n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.split("n_embd", heads),
        ffn=fields.get("n_inner", 4 * hidden),
        context=fields.size("n_positions"),
        tied=bool(fields.get("tie_word_embeddings", True)),
        position="learned",
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        norm="layer",
        norm_eps=float(fields.get("layer_norm_epsilon", 1e-5)),
        activation=fields.choice("activation_function", "gelu_new", ACTIVATIONS),
        gated=False,
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in ACTIVATIONS.items()} | {"gelu_tanh": "gelu_new"}
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": config.ffn,
        "n_positions": config.context,
        "tie_word_embeddings": config.tied,
        "layer_norm_epsilon": config.norm_eps,
        "activation_function": names[config.activation],
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    }


def links(config: TransformerConfig) -> Iterator[Link]:
    yield same("embedding", "transformer.wte.weight")
    yield same("positions", "transformer.wpe.weight")
    for kind in ("weight", "bias"):
        yield same(f"norm.{kind}", f"transformer.ln_f.{kind}")
        for layer in range(config.layers):
            yield from _block_links(f"blocks.{layer}", f"transformer.h.{layer}", kind)
    if not config.tied:
        yield same("head.weight", "lm_head.weight")


def renamed(name: str, config: TransformerConfig) -> str | None:
    """A bare model's checkpoint has no prefix; None for the causal masks that old ones carry."""
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return f"transformer.{name}" if name.startswith(("wte.", "wpe.", "h.", "ln_f.")) else name


def _block_links(ours: str, theirs: str, kind: str) -> Iterator[Link]:
    """GPT-2's linear maps hold (inputs, outputs), and query, key and value are one."""
    transposed = kind == "weight"
    yield same(f"{ours}.attention_norm.{kind}", f"{theirs}.ln_1.{kind}")
    yield same(f"{ours}.mlp_norm.{kind}", f"{theirs}.ln_2.{kind}")
    qkv = tuple(f"{ours}.attention.{part}.{kind}" for part in ("query", "key", "value"))
    yield Link(qkv, (f"{theirs}.attn.c_attn.{kind}",), transposed)
    maps = {"attention.output": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
    for mine, yours in maps.items():
        yield Link((f"{ours}.{mine}.{kind}",), (f"{theirs}.{yours}.{kind}",), transposed)
