"""BERT, MiniLM and their relatives: norms behind the sums, learned positions, GELU (arXiv 1810.04805)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields
from windlass.build.transformer.families.links import Link, both, same

MODEL_TYPE = "bert"
ARCHITECTURE = "BertForMaskedLM"

_HEADLESS = "BertModel"
"""Saved without the masked-LM head, as embedding models are."""


def from_hf(fields: Fields) -> TransformerConfig:
    return shape_of(fields, _HEADLESS)


def shape_of(fields: Fields, headless_architecture: str) -> TransformerConfig:
    fields.only("position_embedding_type", "absolute")
    fields.only("is_decoder", False)
    fields.only("add_cross_attention", False)
    fields.only("pruned_heads", {})
    if (types := fields.get("type_vocab_size", 2)) < 1:  # transformers makes no BERT without any
        raise fields.refused("type_vocab_size", types)
    heads = fields.size("num_attention_heads")
    headless = fields.get("architectures") == [headless_architecture]
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        hidden=fields.size("hidden_size"),
        layers=fields.size("num_hidden_layers"),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.split("hidden_size", heads),
        ffn=fields.size("intermediate_size"),
        context=fields.size("max_position_embeddings"),
        causal=False,
        tied=bool(fields.get("tie_word_embeddings", True)),
        position="learned",
        qkv_bias=True,
        output_bias=True,
        norm="layer",
        norm_eps=float(fields.get("layer_norm_eps", 1e-12)),
        norm_placement="post",
        embedding_norm=True,
        activation=fields.choice("hidden_act", "gelu", ACTIVATIONS),
        gated=False,
        mlp_bias=True,
        token_types=types,
        headless=headless,
        head_transform=not headless,
        head_bias=not headless,
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    return {
        "architectures": [_HEADLESS if config.headless else ARCHITECTURE],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "type_vocab_size": config.token_types,
        "position_embedding_type": "absolute",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def links(config: TransformerConfig) -> list[Link]:
    found = encoder_links(config, "" if config.headless else "bert.")
    if config.headless:
        return found
    found += both("transform.dense", "cls.predictions.transform.dense")
    found += both("transform.norm", "cls.predictions.transform.LayerNorm")
    found.append(same("head_bias", "cls.predictions.bias"))
    return found if config.tied else [*found, same("head.weight", "cls.predictions.decoder.weight")]


def encoder_links(config: TransformerConfig, whole: str) -> list[Link]:
    """Without the head; `whole` is the prefix of the names."""
    found = [
        same("embedding", f"{whole}embeddings.word_embeddings.weight"),
        same("positions", f"{whole}embeddings.position_embeddings.weight"),
        same("token_types", f"{whole}embeddings.token_type_embeddings.weight"),
        *both("embedding_norm", f"{whole}embeddings.LayerNorm"),
    ]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"{whole}encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            found += both(f"{ours}.attention.{part}", f"{theirs}.attention.self.{part}")
        found += both(f"{ours}.attention.output", f"{theirs}.attention.output.dense")
        found += both(f"{ours}.attention_norm", f"{theirs}.attention.output.LayerNorm")
        found += both(f"{ours}.mlp.up", f"{theirs}.intermediate.dense")
        found += both(f"{ours}.mlp.down", f"{theirs}.output.dense")
        found += both(f"{ours}.mlp_norm", f"{theirs}.output.LayerNorm")
    return found


def renamed(name: str, config: TransformerConfig) -> str | None:
    """Old files call a norm's weight gamma and its bias beta, and a bare model may carry the prefix of a whole one.

    None for what has no place here: the pooler and the next-sentence head, which masked-LM training and mean pooling
    do not use, and second copies of the table of positions and of the head's bias.
    """
    name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
    if config.headless:
        name = name.removeprefix("bert.")
    elif name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    unused = ("embeddings.position_ids", "cls.predictions.decoder.bias")
    if name in unused or name.removeprefix("bert.").startswith(("pooler.", "cls.seq_relationship.", *unused)):
        return None
    return name
