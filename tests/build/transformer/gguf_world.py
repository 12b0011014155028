"""Tiny models of every family that GGUF holds, with weights in which each norm and bias shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from windlass.build.transformer.config import Experts, RopeScaling, TransformerConfig
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import save_model

BASE = TransformerConfig(
    vocab_size=288, hidden=64, layers=3, heads=4, kv_heads=2, head_dim=16, ffn=96, context=64, norm_eps=1e-6
)
GEMMA = {
    "activation": "gelu_tanh", "norm_placement": "sandwich", "norm_offset": True, "embedding_scale": 8.0,
    "tied": True, "window": 8, "logit_cap": 30.0,
}  # fmt: skip
LONG = RopeScaling(
    "longrope",
    factor=4.0,
    original_context=16,
    attention_factor=1.2,
    short_factors=(1.0, 1.1, 1.3, 1.6, 1.7, 1.8, 2.0, 2.5),
    long_factors=(1.0, 2.0, 3.0, 4.5, 5.0, 6.0, 7.0, 8.0),
)
EXPERTS = Experts(count=5, active=2, ffn=96)


def _of(**changes: object) -> TransformerConfig:
    return dataclasses.replace(BASE, **changes)  # type: ignore[arg-type]


CONFIGS: dict[str, tuple[str, TransformerConfig]] = {
    "llama": ("llama", BASE),
    "llama-tied-wide": ("llama", _of(tied=True, head_dim=32)),
    "llama-biases": ("llama", _of(qkv_bias=True, output_bias=True, mlp_bias=True)),
    "llama3": ("llama", _of(rope_theta=500.0, rope_scaling=RopeScaling("llama3", 4.0, 16))),
    "llama-linear": ("llama", _of(rope_scaling=RopeScaling("linear", 2.0))),
    "mistral": ("mistral", _of(window=64)),
    "mixtral": ("mixtral", _of(experts=EXPERTS)),
    "qwen2": ("qwen2", _of(qkv_bias=True, tied=True)),
    "qwen3": ("qwen3", _of(qk_norm=True)),
    "qwen3-yarn": ("qwen3", _of(qk_norm=True, rope_theta=100.0, rope_scaling=RopeScaling("yarn", 4.0, 16))),
    "qwen3-moe": ("qwen3_moe", _of(qk_norm=True, experts=EXPERTS)),
    "qwen2-moe": ("qwen2_moe", _of(qkv_bias=True, experts=Experts(5, 2, 32, normalise=False, shared_ffn=48))),
    "gemma2": ("gemma2", _of(**GEMMA, pattern="LG", attention_cap=20.0)),
    "gemma3": ("gemma3_text", _of(**GEMMA, pattern="LLG", qk_norm=True, local_rope_theta=100.0)),
    "phi3": ("phi3", _of(rotary_share=0.75)),
    "phi3-long": ("phi3", _of(rope_scaling=LONG)),
    "phi3-long-derived": ("phi3", _of(rope_scaling=dataclasses.replace(LONG, attention_factor=None))),
}
"""Name -> the family that its folder names, and its configuration."""


def random_decoder(config: TransformerConfig, seed: int = 0) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    decoder = Decoder(config)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            one = "norm" in name and not config.norm_offset
            spread = 0.2 if parameter.dim() == 1 else 1.5 * parameter.shape[-1] ** -0.5
            parameter.normal_(1.0 if one else 0.0, spread, generator=generator)
    return decoder.eval()


def save_random(name: str, folder: Path) -> Decoder:
    """Writes the model's folder, without a tokenizer, and returns it."""
    family, config = CONFIGS[name]
    decoder = random_decoder(config)
    save_model(decoder, folder, family=family, bos=1, eos=2)
    return decoder
