"""T5, versions 1.0 and 1.1: an encoder-decoder whose positions are biases of the scores (arXiv 1910.10683)."""

from __future__ import annotations

from typing import Any

from windlass.build.transformer.config import Activation, TransformerConfig
from windlass.build.transformer.families.fields import Fields
from windlass.build.transformer.families.links import Link, same

MODEL_TYPE = "t5"
ARCHITECTURE = "T5ForConditionalGeneration"

_CONTEXT = 512
"""Distances know no end, so the file need not name a longest sequence; the published models were trained on this."""

_MLPS: dict[str, tuple[Activation, bool]] = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu_tanh", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-gelu_new": ("gelu_tanh", True),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
}
"""Their feed_forward_proj -> activation, gated. Their gated GELU is the one by tanh."""


def from_hf(fields: Fields) -> TransformerConfig:
    fields.only("is_encoder_decoder", True)
    heads = fields.size("num_heads")
    hidden = fields.size("d_model")
    activation, gated = fields.choice("feed_forward_proj", "relu", _MLPS)
    word = fields.get("feed_forward_proj", "relu")
    fields.only("dense_act_fn", "gelu_new" if word == "gated-gelu" else word.removeprefix("gated-"))
    fields.only("is_gated_act", gated)
    tied = bool(fields.get("tie_word_embeddings", True))
    # Version 1.0 shrinks what goes into its tied head; until transformers 5, being tied was the only sign of it.
    scaled = bool(fields.get("scale_decoder_outputs", tied))
    return TransformerConfig(
        vocab_size=fields.size("vocab_size"),
        hidden=hidden,
        layers=fields.size("num_layers"),
        decoder_layers=fields.get("num_decoder_layers", fields.size("num_layers")),
        heads=heads,
        kv_heads=heads,
        head_dim=fields.size("d_kv"),
        ffn=fields.size("d_ff"),
        context=fields.get("n_positions", _CONTEXT),
        tied=tied,
        position="relative",
        relative_buckets=fields.get("relative_attention_num_buckets", 32),
        relative_distance=fields.get("relative_attention_max_distance", 128),
        attention_scale=1.0,
        norm_eps=float(fields.get("layer_norm_epsilon", 1e-6)),
        activation=activation,
        gated=gated,
        logit_scale=hidden**-0.5 if scaled else 1.0,
    )


def to_hf(config: TransformerConfig) -> dict[str, Any]:
    words = {mlp: word for word, mlp in reversed(_MLPS.items())}
    return {
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.hidden,
        "num_layers": config.layers,
        "num_decoder_layers": config.decoder_layers,
        "num_heads": config.heads,
        "d_kv": config.head_dim,
        "d_ff": config.ffn,
        "n_positions": config.context,
        "tie_word_embeddings": config.tied,
        "scale_decoder_outputs": config.logit_scale != 1.0,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "layer_norm_epsilon": config.norm_eps,
        "feed_forward_proj": words.get((config.activation, config.gated)),
        "dropout_rate": 0.0,
    }


def links(config: TransformerConfig) -> list[Link]:
    found = [same("embedding", "shared.weight")]
    for half, layers in (("encoder", config.layers), ("decoder", config.decoder_layers)):
        first = f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found += [same(f"{half}.relative", first), same(f"{half}.norm.weight", f"{half}.final_layer_norm.weight")]
        for layer in range(layers):
            found += _block(half, layer, config.gated)
    return found if config.tied else [*found, same("head.weight", "lm_head.weight")]


def _block(half: str, layer: int, gated: bool) -> list[Link]:
    """Theirs numbers the parts of a layer: attention, in the decoder cross-attention, MLP."""
    ours, theirs = f"{half}.blocks.{layer}", f"{half}.block.{layer}.layer"
    parts = [("attention", "SelfAttention"), *([("cross", "EncDecAttention")] if half == "decoder" else [])]
    found = []
    for number, (mine, yours) in enumerate(parts):
        found.append(same(f"{ours}.{mine}_norm.weight", f"{theirs}.{number}.layer_norm.weight"))
        found += [
            same(f"{ours}.{mine}.{part}.weight", f"{theirs}.{number}.{yours}.{part[0]}.weight")
            for part in ("query", "key", "value", "output")
        ]
    last = len(parts)
    names = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    found.append(same(f"{ours}.mlp_norm.weight", f"{theirs}.{last}.layer_norm.weight"))
    for mine, yours in names.items():
        found.append(same(f"{ours}.mlp.{mine}.weight", f"{theirs}.{last}.DenseReluDense.{yours}.weight"))
    return found


def renamed(name: str, config: TransformerConfig) -> str | None:
    """None for copies of the shared embedding, and for a bias of cross-attention that old files carry unused."""
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    return None if name in (*copies, unused) else name
