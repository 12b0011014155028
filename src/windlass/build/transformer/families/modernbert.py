"""ModernBERT: rotary positions, gated MLP, most layers local with a RoPE base of their own (arXiv 2412.13663)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.fields import ACTIVATIONS, Fields, rope_of, rope_to_hf
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "modernbert"
ARCHITECTURE = "ModernBertForMaskedLM"

_HEADLESS = "ModernBertModel"
_LETTERS = {"full_attention": "G", "sliding_attention": "L"}


def from_hf(fields: Fields) -> TransformerConfig:
    layers = fields.size("num_hidden_layers")
    heads = fields.size("num_attention_heads")
    headless = fields.get("architectures") == [_HEADLESS]
    activation = fields.choice("hidden_activation", "gelu", ACTIVATIONS)
    mlp_bias = bool(fields.get("mlp_bias", False))
    if not headless:  # the dense layer before the head takes after the MLP
        fields.only("classifier_activation", fields.get("hidden_activation", "gelu"))
        fields.only("classifier_bias", mlp_bias)
    fields.only("rope_scaling", None)
    sets = fields.get("rope_parameters", {})
    far = rope_of(
        fields, 0.0, {"rope_theta": fields.get("global_rope_theta", 160_000.0), **sets.get("full_attention", {})}
    )
    near = rope_of(
        fields, 0.0, {"rope_theta": fields.get("local_rope_theta", 10_000.0), **sets.get("sliding_attention", {})}
    )
    if len(near) > 1:
        raise fields.refused("rope_parameters.sliding_attention", sets["sliding_attention"])
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        hidden=fields.size("hidden_size"),
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=fields.split("hidden_size", heads),
        ffn=fields.size("intermediate_size"),
        context=fields.size("max_position_embeddings"),
        causal=False,
        tied=bool(fields.get("tie_word_embeddings", True)),
        **far,
        local_rope_theta=near["rope_theta"],
        window=fields.get("local_attention", 128),
        pattern=_pattern(fields, layers),
        qkv_bias=bool(fields.get("attention_bias", False)),
        output_bias=bool(fields.get("attention_bias", False)),
        norm="layer",
        norm_eps=float(fields.get("norm_eps", 1e-5)),
        norm_bias=bool(fields.get("norm_bias", False)),
        embedding_norm=True,
        first_norm=False,
        activation=activation,
        gated=True,
        mlp_bias=mlp_bias,
        headless=headless,
        head_transform=not headless,
        head_bias=not headless and bool(fields.get("decoder_bias", True)),
    )


def _pattern(fields: Fields, layers: int) -> str:
    """One letter per layer; before transformers 5 the file says instead that every n-th layer is global."""
    kinds = fields.get("layer_types")
    if kinds is None:
        every = fields.get("global_attn_every_n_layers", 3)
        return "".join("L" if layer % every else "G" for layer in range(layers))
    if unknown := [kind for kind in kinds if kind not in _LETTERS]:
        raise fields.refused("layer_types", unknown[0])
    return "".join(_LETTERS[kind] for kind in kinds)


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    far = rope_to_hf(config.rope_theta, config.rope_scaling, config.rotary_share)
    near = rope_to_hf(config.local_rope_theta or config.rope_theta, None)
    return {
        "architectures": [_HEADLESS if config.headless else ARCHITECTURE],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tied,
        "rope_parameters": {"full_attention": far, "sliding_attention": near},
        "layer_types": [
            "sliding_attention" if config.local(layer) else "full_attention" for layer in range(config.layers)
        ],
        "local_attention": config.window,
        "attention_bias": config.qkv_bias,
        "attention_dropout": 0.0,
        "norm_eps": config.norm_eps,
        "norm_bias": config.norm_bias,
        "hidden_activation": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "classifier_activation": {"gelu_tanh": "gelu_new"}.get(config.activation, config.activation),
        "mlp_bias": config.mlp_bias,
        "classifier_bias": config.mlp_bias,
        "decoder_bias": config.head_bias,
    }


def links(config: TransformerConfig) -> list[Link]:
    whole = "" if config.headless else "model."

    def linear(ours: tuple[str, ...], theirs: str, bias: bool) -> list[Link]:
        kinds = ("weight", "bias") if bias else ("weight",)
        return [Link(tuple(f"{name}.{kind}" for name in ours), (f"{theirs}.{kind}",)) for kind in kinds]

    def norm(ours: str, theirs: str) -> list[Link]:
        return linear((ours,), theirs, config.norm_bias)

    found = [same("embedding", f"{whole}embeddings.tok_embeddings.weight")]
    found += norm("embedding_norm", f"{whole}embeddings.norm") + norm("norm", f"{whole}final_norm")
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"{whole}layers.{layer}"
        attention = f"{ours}.attention"
        if layer:
            found += norm(f"{ours}.attention_norm", f"{theirs}.attn_norm")
        qkv = tuple(f"{attention}.{part}" for part in ("query", "key", "value"))
        found += linear(qkv, f"{theirs}.attn.Wqkv", config.qkv_bias)
        found += linear((f"{attention}.output",), f"{theirs}.attn.Wo", config.output_bias)
        found += norm(f"{ours}.mlp_norm", f"{theirs}.mlp_norm")
        found += linear((f"{ours}.mlp.gate", f"{ours}.mlp.up"), f"{theirs}.mlp.Wi", config.mlp_bias)
        found += linear((f"{ours}.mlp.down",), f"{theirs}.mlp.Wo", config.mlp_bias)
    if config.headless:
        return found
    found += linear(("transform.dense",), "head.dense", config.mlp_bias) + norm("transform.norm", "head.norm")
    if config.head_bias:
        found.append(same("head_bias", "decoder.bias"))
    return found if config.tied else [*found, same("head.weight", "decoder.weight")]


def renamed(name: str, config: TransformerConfig) -> str | None:
    """Checkpoints agree on the names."""
    return name
