"""The shape of a decoder, and how it reads and writes as a Hugging Face `config.json` of the Llama family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Everything that the weights' shapes and the arithmetic depend on."""

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    """Grouped-query attention: each key/value head serves heads/kv_heads query heads (arXiv 2305.13245)."""
    head_dim: int
    ffn: int
    context: int
    """Longest sequence in tokens, as `max_position_embeddings`."""
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tied: bool = False
    """Whether the head shares the embedding's matrix."""

    def __post_init__(self) -> None:
        for field in ("vocab_size", "hidden", "layers", "heads", "kv_heads", "head_dim", "ffn", "context"):
            if getattr(self, field) < 1:
                raise InputError(f"Model configuration: {field} is {getattr(self, field)}, but must be at least 1.")
        if self.heads % self.kv_heads:
            raise InputError(
                f"Model configuration: {self.heads} query heads cannot share {self.kv_heads} key/value heads evenly.",
                "Choose kv_heads as a divisor of heads.",
            )
        if self.head_dim % 2:
            raise InputError(f"Model configuration: head_dim is {self.head_dim}, but RoPE rotates pairs.")

    @property
    def parameters(self) -> int:
        """How many numbers the model holds."""
        return (1 if self.tied else 2) * self.vocab_size * self.hidden + self.matrix_parameters + self._norm_parameters

    @property
    def matrix_parameters(self) -> int:
        """Weights of the blocks' matrices, without embedding and head."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def _norm_parameters(self) -> int:
        return (2 * self.layers + 1) * self.hidden

    @property
    def flops_per_token(self) -> float:
        """Floating-point operations to train on one token at full context: 6 for every weight that multiplies,
        plus attention's scores and sums at the causal half (arXiv 2204.02311, appendix B)."""
        attention = 6 * self.layers * self.heads * self.head_dim * self.context
        return 6 * (self.matrix_parameters + self.vocab_size * self.hidden) + attention


def to_hf(config: DecoderConfig, *, bos: int | None = None, eos: int | None = None) -> dict[str, Any]:
    """The configuration as `transformers` reads it (versions 4 and 5: both spellings of the RoPE base)."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": None,
        "torch_dtype": "float32",
        "use_cache": True,
    }


def from_hf(values: Mapping[str, Any], where: str) -> DecoderConfig:
    """Reads a Llama `config.json`. What the decoder would compute differently is refused by name, never ignored."""

    def need(key: str) -> Any:
        if values.get(key) is None:
            raise InputError(f"{where}: '{key}' is missing.", "Take the config.json of a Llama model.")
        return values[key]

    if values.get("model_type") != "llama":
        raise InputError(
            f"{where}: model_type is {values.get('model_type')!r}, but only 'llama' can be read.",
            "Other families are not supported yet.",
        )
    rope = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    unsupported = {
        "hidden_act": values.get("hidden_act", "silu") != "silu",
        "attention_bias": bool(values.get("attention_bias")),
        "mlp_bias": bool(values.get("mlp_bias")),
        f"rope_type={kind}": kind != "default",
    }
    for key, found in unsupported.items():
        if found:
            raise InputError(f"{where}: '{key}' is set to something this decoder does not compute.")
    heads = need("num_attention_heads")
    return DecoderConfig(
        vocab_size=need("vocab_size"),
        hidden=need("hidden_size"),
        layers=need("num_hidden_layers"),
        heads=heads,
        kv_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or need("hidden_size") // heads,
        ffn=need("intermediate_size"),
        context=need("max_position_embeddings"),
        rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
        norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        tied=bool(values.get("tie_word_embeddings", False)),
    )
