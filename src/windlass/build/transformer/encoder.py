"""The encoder of BERT and its distilled relatives: post-norm layers, GELU, learned positions.

Devlin et al. (arXiv 1810.04805); MiniLM is a small one distilled from a large one (Wang et al., arXiv 2002.10957).

Sequences are *packed*: one after another in a single row of tokens, with no padding. Nothing but attention looks
across positions, so everything else runs on the packed tokens at once, and attention runs on each stretch of
neighbours of equal length as on an ordinary batch, with no mask. A batch sorted by length therefore wastes nothing,
and what a text gives does not depend on how long its neighbours are.

Letters at the end of a tensor's name give its shape:

    T  tokens of all sequences together    C  hidden width    H  heads    D  width of one head
    N  sequences of one stretch            L  their length
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.core.errors import InputError, Unsupported


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    inner: int
    """Width between the two linear maps of a layer's feed-forward part."""
    positions: int
    """Longest sequence, in tokens."""
    types: int = 2
    """Kinds of segments; a lone text is of type 0."""
    epsilon: float = 1e-12
    """Added to the variance in every layer norm."""

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """From a Hugging Face `config.json` of type `bert`. What this encoder does not do is refused by name."""
        for key, known in (
            ("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute"),
            ("is_decoder", False), ("add_cross_attention", False),
        ):  # fmt: skip
            if (value := config.get(key, known)) != known:
                raise Unsupported(f"config.json: {key} is {value!r}.", f"This encoder knows {known!r} only.")
        try:
            made = cls(
                vocabulary=config["vocab_size"],
                hidden=config["hidden_size"],
                layers=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                inner=config["intermediate_size"],
                positions=config["max_position_embeddings"],
                types=config.get("type_vocab_size", 2),
                epsilon=config.get("layer_norm_eps", 1e-12),
            )
        except KeyError as error:
            raise InputError(f"config.json: {error} is missing.", "Is this the folder of a BERT-style model?") from None
        if made.hidden % made.heads:
            raise InputError(f"config.json: hidden_size {made.hidden} cannot be split into {made.heads} heads.")
        return made

    def to_hf(self) -> dict[str, Any]:
        return {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "position_embedding_type": "absolute",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.inner,
            "max_position_embeddings": self.positions,
            "type_vocab_size": self.types,
            "layer_norm_eps": self.epsilon,
        }


class EncoderLayer(nn.Module):
    """Attention, then feed-forward; each is added to its input and the *sum* is normed (post-norm)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        """Query, key and value in one map: one large product is faster than three small ones."""
        self.output = nn.Linear(config.hidden, config.hidden)
        self.attention_norm = nn.LayerNorm(config.hidden, eps=config.epsilon)
        self.up = nn.Linear(config.hidden, config.inner)
        self.down = nn.Linear(config.inner, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.epsilon)

    def forward(self, x_TC: Tensor, stretches: Sequence[tuple[int, int]]) -> Tensor:
        mixed_TC = self._attend(self.qkv(x_TC), stretches)
        x_TC = self.attention_norm(x_TC + self.output(mixed_TC))
        done: Tensor = self.norm(x_TC + self.down(F.gelu(self.up(x_TC))))
        return done

    def _attend(self, qkv: Tensor, stretches: Sequence[tuple[int, int]]) -> Tensor:
        """Attention within each sequence; `stretches` are (sequences, length) pairs in the order of the tokens."""
        out = []
        for part, (count, length) in zip(torch.split(qkv, [n * length for n, length in stretches]), stretches):
            q_NHLD, k_NHLD, v_NHLD = part.view(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            mixed_NHLD = F.scaled_dot_product_attention(q_NHLD, k_NHLD, v_NHLD)
            out.append(mixed_NHLD.transpose(1, 2).reshape(count * length, -1))
        return out[0] if len(out) == 1 else torch.cat(out)


class Encoder(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.positions = nn.Embedding(config.positions, config.hidden)
        self.types = nn.Embedding(config.types, config.hidden)
        self.norm = nn.LayerNorm(config.hidden, eps=config.epsilon)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, ids_T: Tensor, lengths: Sequence[int]) -> Tensor:
        """Contextual vectors (T, C) of packed token ids (T,), int64. `lengths` are those of the sequences, in order.

        Fastest when sequences of equal length are neighbours. Raises `InputError` for a sequence that is empty or
        longer than the learned positions, or when the lengths do not add up to T.
        """
        if not lengths or min(lengths) < 1 or sum(lengths) != len(ids_T):
            raise InputError(f"{len(ids_T)} tokens cannot be split into sequences of lengths {list(lengths)[:8]}.")
        if max(lengths) > self.config.positions:
            raise InputError(
                f"A sequence has {max(lengths)} tokens; this encoder knows {self.config.positions} positions."
            )
        stretches = [(len(list(same)), length) for length, same in itertools.groupby(lengths)]
        row = torch.arange(max(lengths), device=ids_T.device)
        position_T = torch.cat([row[:length].repeat(count) for count, length in stretches])
        x_TC: Tensor = self.norm(self.tokens(ids_T) + self.positions(position_T) + self.types.weight[0])
        for layer in self.layers:
            x_TC = layer(x_TC, stretches)
        return x_TC

    @torch.no_grad()
    def load_hf(self, weights: Mapping[str, Tensor]) -> None:
        """Takes the weights of a Hugging Face `BertModel`, with or without the prefix `bert.`.

        Raises `InputError` naming the first tensor that is missing, of another shape, or left over. Only the pooler
        (a map of the first token that this encoder does not use), the table of positions and task heads may be left.
        """
        weights = {name.removeprefix("bert."): tensor for name, tensor in weights.items()}
        state = self.state_dict()
        left = set(weights)
        for name, sources in _weight_map(self.config.layers).items():
            left.difference_update(sources)
            if missing := [source for source in sources if source not in weights]:
                raise InputError(f"The weights lack the tensor '{missing[0]}'.", "Is the model's file complete?")
            value = torch.cat([weights[source] for source in sources])
            if value.shape != state[name].shape:
                raise InputError(
                    f"The tensor '{sources[0]}' has the shape {tuple(weights[sources[0]].shape)}, which does not fit "
                    f"the configuration (as '{name}': {tuple(value.shape)}, expected {tuple(state[name].shape)}).",
                    "config.json and the weights belong to different models.",
                )
            state[name].copy_(value)
        if extra := sorted(
            name for name in left if name.startswith(("embeddings.", "encoder.")) and name not in _UNUSED
        ):
            raise InputError(f"The weights hold the tensor '{extra[0]}', for which this encoder has no place.")

    def to_hf(self) -> dict[str, Tensor]:
        """The weights under Hugging Face's names, ready for safetensors."""
        state = self.state_dict()
        return {
            source: part.contiguous()
            for name, sources in _weight_map(self.config.layers).items()
            for source, part in zip(sources, state[name].chunk(len(sources)))
        }


_UNUSED = {"embeddings.position_ids"}


def _weight_map(layers: int) -> dict[str, list[str]]:
    """Our tensor -> the Hugging Face tensors that it is the concatenation of."""
    modules = {
        "tokens": ["embeddings.word_embeddings"],
        "positions": ["embeddings.position_embeddings"],
        "types": ["embeddings.token_type_embeddings"],
        "norm": ["embeddings.LayerNorm"],
    }
    for i in range(layers):
        ours, theirs = f"layers.{i}", f"encoder.layer.{i}"
        modules |= {
            f"{ours}.qkv": [f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")],
            f"{ours}.output": [f"{theirs}.attention.output.dense"],
            f"{ours}.attention_norm": [f"{theirs}.attention.output.LayerNorm"],
            f"{ours}.up": [f"{theirs}.intermediate.dense"],
            f"{ours}.down": [f"{theirs}.output.dense"],
            f"{ours}.norm": [f"{theirs}.output.LayerNorm"],
        }
    tables = ("tokens", "positions", "types")
    return {
        f"{ours}.{kind}": [f"{source}.{kind}" for source in sources]
        for ours, sources in modules.items()
        for kind in (("weight",) if ours in tables else ("weight", "bias"))
    }
