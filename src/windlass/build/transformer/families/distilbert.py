"""DistilBERT: BERT of half the layers, without types of segments (arXiv 1910.01108)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields
from windlass.build.transformer.families.links import Link, both, same

MODEL_TYPE = "distilbert"
ARCHITECTURE = "DistilBertForMaskedLM"

_HEADLESS = "DistilBertModel"
_EPS = 1e-12
_PARTS = {
    "attention.query": "attention.q_lin",
    "attention.key": "attention.k_lin",
    "attention.value": "attention.v_lin",
    "attention.output": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "mlp.up": "ffn.lin1",
    "mlp.down": "ffn.lin2",
    "mlp_norm": "output_layer_norm",
}


def from_hf(fields: Fields) -> TransformerConfig:
    fields.only("pruned_heads", {})
    fields.only("layer_norm_eps", _EPS)
    heads = fields.size("n_heads")
    headless = fields.get("architectures") == [_HEADLESS]
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        hidden=fields.size("dim"),
        layers=fields.size("n_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.split("dim", heads),
        ffn=fields.size("hidden_dim"),
        context=fields.size("max_position_embeddings"),
        causal=False,
        tied=bool(fields.get("tie_word_embeddings", True)),
        position="learned",
        qkv_bias=True,
        output_bias=True,
        norm="layer",
        norm_eps=_EPS,
        norm_placement="post",
        embedding_norm=True,
        activation=fields.choice("activation", "gelu", ACTIVATIONS),
        gated=False,
        mlp_bias=True,
        headless=headless,
        head_transform=not headless,
        head_bias=not headless,
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return {
        "architectures": [_HEADLESS if config.headless else ARCHITECTURE],
        "vocab_size": config.vocab_size,
        "dim": config.hidden,
        "n_layers": config.layers,
        "n_heads": config.heads,
        "hidden_dim": config.ffn,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied,
        "activation": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }


def links(config: TransformerConfig) -> list[Link]:
    whole = "" if config.headless else "distilbert."
    found = [
        same("embedding", f"{whole}embeddings.word_embeddings.weight"),
        same("positions", f"{whole}embeddings.position_embeddings.weight"),
        *both("embedding_norm", f"{whole}embeddings.LayerNorm"),
    ]
    for layer in range(config.layers):
        for ours, theirs in _PARTS.items():
            found += both(f"blocks.{layer}.{ours}", f"{whole}transformer.layer.{layer}.{theirs}")
    if config.headless:
        return found
    found += both("transform.dense", "vocab_transform") + both("transform.norm", "vocab_layer_norm")
    found.append(same("head_bias", "vocab_projector.bias"))
    return found if config.tied else [*found, same("head.weight", "vocab_projector.weight")]


def renamed(name: str, config: TransformerConfig) -> str | None:
    """A bare model may carry the prefix of a whole one, and the other way round."""
    bare = name.removeprefix("distilbert.")
    if bare == "embeddings.position_ids":
        return None
    if config.headless:
        return bare
    return f"distilbert.{bare}" if bare.startswith(("embeddings.", "transformer.")) else name
