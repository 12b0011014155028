"""The encoder-decoder: one stack reads the source, the other writes the target and looks back at it (T5).

    model = EncoderDecoder(config)                      # weights are empty until `init.initialise` or `hf.load_model`
    logits_BTV = model(source_BS, target_BT)            # training; target_BT is shifted right by one start token

Writing, one position at a time (`generating.py` does all of it):

    with torch.inference_mode():
        memory = model.remember(source_BS)              # the source is read once
        cache = model.new_cache(batch=len(source_BS))
        while ...:
            logits_BV = model.decode_step(token_B, memory, cache)

Padding of the source is a document of its own: `source_documents_BS = torch.where(real_BS, 0, -1)`. Rows that pack
several pairs number them the same in `source_documents_BS` and `target_documents_BT`.

Vaswani et al. (arXiv 1706.03762); T5: Raffel et al. (arXiv 1910.10683).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windlass.build.transformer.attention import KeysValues, Sight, as_mask
from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.stack import Stack
from windlass.build.transformer.vocabulary import embed, scores
from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Memory:
    """What the decoder looks back at."""

    source: Tensor | list[KeysValues]
    """The encoder's output (B, S, C); for writing step by step, the keys and values that each block makes of it."""
    documents_BS: Tensor | None = None


class EncoderDecoder(nn.Module):
    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if not config.decoder_layers:
            raise InputError("Model configuration: decoder_layers is 0, so there is nothing to write with.")
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        first, second = config.halves
        self.encoder, self.decoder = Stack(first), Stack(second, cross=True)
        self.head = None if config.tied else Linear(config.hidden, config.vocab_size)
        self.head_bias = nn.Parameter(torch.empty(config.vocab_size)) if config.head_bias else None

    def remember(
        self, source_BS: Tensor, *, source_documents_BS: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Memory:
        """Reads the source, once for however many steps. Raises `InputError` when it is longer than the model reads."""
        return Memory(self.decoder.remember(self.read(source_BS, source_documents_BS, dtype)), source_documents_BS)

    def read(
        self,
        source_BS: Tensor,
        documents_BS: Tensor | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """The encoder's normalised output, (B, S, C)."""
        x_BSC = embed(source_BS, self.embedding, self.config, dtype)
        return self.encoder.through(*self.encoder.enter(x_BSC, documents_BS), routing)

    def hidden(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        *,
        source_documents_BS: Tensor | None = None,
        target_documents_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """The decoder's normalised residual stream, (B, T, C).

        Attention stays inside a document on both sides, and a target looks at the source of its own number (0 when
        `target_documents_BT` is not given); one without a source is NaN, unless its number is below 0 (padding).
        `routing`: every mixture of experts appends its balancing loss.
        """
        memory = Memory(self.read(source_BS, source_documents_BS, dtype, routing), source_documents_BS)
        return self.write(target_BT, memory, documents_BT=target_documents_BT, dtype=dtype, routing=routing)

    def write(
        self,
        target_BT: Tensor,
        memory: Memory,
        *,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """The decoder's pass over `target_BT`, (B, T, C), behind the positions that `cache` already holds."""
        x_BTC = embed(target_BT, self.embedding, self.config, dtype)
        x_BTC, sights = self.decoder.enter(x_BTC, documents_BT, cache)
        across = _across(target_BT, documents_BT, memory)
        x_BTC = self.decoder.through(x_BTC, sights, routing, memory.source, across)
        if cache is not None:
            cache.advance(target_BT.shape[1])
        return x_BTC

    def logits(self, x_BTC: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, in the dtype of `x_BTC`."""
        return scores(x_BTC, self.head or self.output_weight, self.head_bias, self.config)

    @property
    def output_weight(self) -> Tensor:
        """The head's matrix (V, C): the embedding itself when tied."""
        return self.embedding if self.head is None else self.head.weight

    def forward(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        *,
        source_documents_BS: Tensor | None = None,
        target_documents_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of `hidden`."""
        return self.logits(
            self.hidden(
                source_BS,
                target_BT,
                source_documents_BS=source_documents_BS,
                target_documents_BT=target_documents_BT,
                dtype=dtype,
                routing=routing,
            )
        )

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache of the target's positions (default capacity: the model's context)."""
        weight = self.embedding
        return KVCache(self.decoder.config, batch=batch, capacity=capacity, dtype=weight.dtype, device=weight.device)

    def decode_step(self, token_B: Tensor, memory: Memory, cache: KVCache) -> Tensor:
        """Reads one token per target; logits of the one after it, shape (B, V)."""
        return self.logits(self.write(token_B[:, None], memory, cache=cache)[:, -1])


def _across(target_BT: Tensor, documents_BT: Tensor | None, memory: Memory) -> Sight:
    """What the target sees of the source: all of it, or that of its own document."""
    if memory.documents_BS is None:
        if documents_BT is not None:
            raise InputError(
                "The target is told apart into documents, the source is not.",
                "Give source_documents_BS too: 0 for the source, below 0 for its padding.",
            )
        return Sight()
    if documents_BT is None:
        documents_BT = torch.zeros_like(target_BT)
    # Padding (below 0) may look anywhere: seeing nothing at all would make it NaN, and with it every gradient.
    seen_BTS = (documents_BT[:, :, None] == memory.documents_BS[:, None]) | (documents_BT[:, :, None] < 0)
    return Sight(mask=as_mask(seen_BTS[:, None]))
