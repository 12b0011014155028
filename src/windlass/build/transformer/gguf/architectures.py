"""What llama.cpp calls a model's family, which configurations it computes, and the names of its tensors.

An architecture is a row of `ARCHITECTURES`: the choices that are fixed by its name. All others are key-values of the
file, read and written by `metadata.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.families.links import Link, same


@dataclass(frozen=True, slots=True)
class Architecture:
    name: str
    family: str
    """Under which of `families` such a model is kept here."""
    fixed: dict[str, Any] = field(default_factory=dict)
    """Fields of the configuration that the name alone decides."""
    rope_in_neighbours: bool = False
    """RoPE turns dimensions 2i and 2i + 1 together, so the rows of queries and keys are stored in another order."""
    fused: bool = False
    """Query, key and value lie in one tensor, and so do gate and up."""
    windowed: bool = False
    """Local layers are computed; the others' windows are not, whatever the file says."""
    narrow: bool = False
    """Heads together must be as wide as the residual stream."""
    optional_head: bool = True
    """A file without a head uses the embedding."""


_GEMMA: dict[str, Any] = {
    "activation": "gelu_tanh",
    "norm_placement": "sandwich",
    "norm_offset": True,
}
_ALL = (
    Architecture("llama", "llama", rope_in_neighbours=True),
    Architecture("qwen3", "qwen3", {"qk_norm": True}),
    Architecture("qwen2", "qwen2", {"qkv_bias": True}),
    Architecture("gemma3", "gemma3_text", {**_GEMMA, "qk_norm": True}, windowed=True),
    Architecture("gemma2", "gemma2", _GEMMA, windowed=True),
    Architecture("phi3", "phi3", fused=True, narrow=True),
    Architecture("qwen3moe", "qwen3_moe", {"qk_norm": True}),
    Architecture("qwen2moe", "qwen2_moe", {"qkv_bias": True}, narrow=True, optional_head=False),
)  # fmt: skip
ARCHITECTURES: dict[str, Architecture] = {row.name: row for row in _ALL}
"""A model is exported as the first of them that expresses its configuration."""


def links(config: TransformerConfig, row: Architecture) -> Iterator[Link]:
    """Our tensors and the file's, in the order of the file."""
    yield same("embedding", "token_embd.weight")
    for layer in range(config.layers):
        yield from _attention(config, row, f"blocks.{layer}", f"blk.{layer}")
        yield from _feed(config, row, layer, f"blocks.{layer}.mlp", f"blk.{layer}")
    yield same("norm.weight", "output_norm.weight")
    if not config.tied:
        yield same("head.weight", "output.weight")


def _attention(config: TransformerConfig, row: Architecture, ours: str, theirs: str) -> Iterator[Link]:
    norms = {"attention_norm": "attn_norm", "mlp_norm": "ffn_norm"}
    if config.norm_placement == "sandwich":
        norms |= {"attention_after_norm": "post_attention_norm", "mlp_after_norm": "post_ffw_norm"}
    if config.qk_norm:
        norms |= {"attention.query_norm": "attn_q_norm", "attention.key_norm": "attn_k_norm"}
    for mine, yours in norms.items():
        yield same(f"{ours}.{mine}.weight", f"{theirs}.{yours}.weight")
    maps = {"query": "attn_q", "key": "attn_k", "value": "attn_v"}
    for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
        if row.fused:
            yield Link(tuple(f"{ours}.attention.{mine}.{kind}" for mine in maps), (f"{theirs}.attn_qkv.{kind}",))
        else:
            for mine, yours in maps.items():
                yield same(f"{ours}.attention.{mine}.{kind}", f"{theirs}.{yours}.{kind}")
    for kind in ("weight", "bias") if config.output_bias else ("weight",):
        yield same(f"{ours}.attention.output.{kind}", f"{theirs}.attn_output.{kind}")


def _feed(config: TransformerConfig, row: Architecture, layer: int, ours: str, theirs: str) -> Iterator[Link]:
    parts = ("gate", "up", "down")
    if not config.sparse(layer):
        for kind in ("weight", "bias") if config.mlp_bias else ("weight",):
            if row.fused:
                yield Link((f"{ours}.gate.{kind}", f"{ours}.up.{kind}"), (f"{theirs}.ffn_up.{kind}",))
                yield same(f"{ours}.down.{kind}", f"{theirs}.ffn_down.{kind}")
            else:
                for part in parts:
                    yield same(f"{ours}.{part}.{kind}", f"{theirs}.ffn_{part}.{kind}")
        return
    yield same(f"{ours}.router.weight", f"{theirs}.ffn_gate_inp.weight")
    for part in parts:
        yield same(f"{ours}.{part}", f"{theirs}.ffn_{part}_exps.weight")
    if config.experts is not None and config.experts.shared_ffn:
        yield same(f"{ours}.shared_gate.weight", f"{theirs}.ffn_gate_inp_shexp.weight")
        for part in parts:
            yield same(f"{ours}.shared.{part}.weight", f"{theirs}.ffn_{part}_shexp.weight")


def theirs_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The gate of a shared expert is one vector there."""
    return shape[1:] if name.endswith("ffn_gate_inp_shexp.weight") else shape


def to_theirs(name: str, tensor: Tensor, config: TransformerConfig, row: Architecture) -> Tensor:
    """A tensor's numbers as the file wants them: RoPE's pairs as neighbours, a norm's weight with its offset."""
    if heads := _turned_heads(name, config, row):
        tensor = tensor.reshape(heads, 2, config.head_dim // 2, *tensor.shape[1:]).transpose(1, 2).flatten(0, 2)
    if config.norm_offset and name.endswith("norm.weight"):
        tensor = tensor + 1.0
    return tensor.reshape(theirs_shape(name, tuple(tensor.shape)))


def to_ours(name: str, tensor: Tensor, config: TransformerConfig, row: Architecture) -> Tensor:
    """The inverse of `to_theirs`."""
    if heads := _turned_heads(name, config, row):
        tensor = tensor.reshape(heads, config.head_dim // 2, 2, *tensor.shape[1:]).transpose(1, 2).flatten(0, 2)
    if config.norm_offset and name.endswith("norm.weight"):
        tensor = tensor - 1.0
    return tensor[None] if name.endswith("ffn_gate_inp_shexp.weight") else tensor


def _turned_heads(name: str, config: TransformerConfig, row: Architecture) -> int:
    """How many heads a tensor holds whose dimensions stand in another order; 0: none."""
    if not row.rope_in_neighbours:
        return 0
    return config.heads if ".attn_q." in name else config.kv_heads if ".attn_k." in name else 0
