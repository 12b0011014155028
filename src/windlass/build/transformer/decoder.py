"""The decoder: tokens in, logits of the next token out.

    model = Decoder(config)                         # weights are empty until `init.initialise` or `hf.load_model`
    logits_BTV = model(tokens_BT)                   # training: a whole sequence at once
    logits_BTV = model(tokens_BT, dtype=torch.bfloat16)   # the same with bfloat16 activations
    logits_BTV = model(tokens_BT, documents_BT=documents_BT)   # rows that pack several documents

Writing text, one position at a time, with a cache of keys and values:

    with torch.inference_mode():
        cache = model.new_cache(batch=1)
        logits_BV = model.prefill(tokens_BT, cache)     # the prompt; logits after its last token
        while ...:
            token_B = choose(logits_BV)
            logits_BV = model.decode_step(token_B, cache)

`cache.length` is the number of positions read, `cache.room` how many more fit, `cache.truncate(n)` goes back.
A prompt may be read in several `prefill` calls. `hf.load_model(folder)` reads a Hugging Face folder of any family in
`families/`, `hf.save_model` writes one. Sequences of one batch have equal length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from windlass.build.transformer.attention import Sight
from windlass.build.transformer.branches import Branches
from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.ragged import Parts
from windlass.build.transformer.stack import Stack
from windlass.build.transformer.vocabulary import embed, scores


class Decoder(Stack):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.head = None if config.tied else Linear(config.hidden, config.vocab_size)
        self.head_bias = nn.Parameter(torch.empty(config.vocab_size)) if config.head_bias else None

    def start(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, list[Sight]]:
        """The embedded tokens and each block's sight; `hidden` is this, the blocks, and the norm.

        `dtype` is the precision of the activations (None: that of the weights).
        """
        return self.enter(embed(tokens_BT, self.embedding, self.config, dtype), documents_BT, cache)

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """The normalised residual stream after the last block, shape (B, T, C).

        `documents_BT` (int64): the document that each position belongs to; attention stays inside it and positions
        restart. `routing`: every mixture of experts appends its balancing loss. Raises `InputError` when the sequence
        is longer than the model reads.
        """
        if cache is None:
            return self.through(*self.start(tokens_BT, documents_BT=documents_BT, dtype=dtype), routing)
        new, end = tokens_BT.shape[1], cache.length + tokens_BT.shape[1]
        if end <= self.config.context:
            cache.note(tokens_BT)
        if cache.length and self.config.stretched(end) != cache.stretched:
            tokens_BT = cache.tokens[:, :end]  # LongRoPE now turns every position differently
            cache.truncate(0)
        cache.stretched = self.config.stretched(end)
        x_BTC = self.through(*self.start(tokens_BT, documents_BT=documents_BT, cache=cache, dtype=dtype), routing)
        cache.advance(tokens_BT.shape[1])
        return x_BTC[:, -new:]

    def hidden_of_texts(
        self,
        tokens_T: Tensor,
        lengths: Sequence[int],
        *,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """As `hidden`, (T, C), of whole texts that stand one behind the other: without padding, and without masks."""
        x_1TC = embed(tokens_T[None], self.embedding, self.config, dtype)
        return self.through(*self.enter(x_1TC, lengths=lengths), routing)[0, : len(tokens_T)]

    def hidden_of_parts(self, tokens_T: Tensor, parts: Parts, *, dtype: torch.dtype | None = None) -> Tensor:
        """As `hidden`, (T, C), of a row that holds the next parts of several texts."""
        x_1TC = embed(tokens_T[None], self.embedding, self.config, dtype)
        x_1TC = self.through(*self.enter(x_1TC, parts=parts))
        for cache, new in zip(parts.caches, parts.lengths, strict=True):
            cache.advance(new)
        return x_1TC[0]

    def hidden_of_branches(self, tokens_T: Tensor, branches: Branches, cache: KVCache) -> Tensor:
        """As `hidden`, (T, C), of tokens that continue different places of what the (one-row) cache holds."""
        x_1TC = embed(tokens_T[None], self.embedding, self.config, None)
        x_1TC = self.through(*self.enter(x_1TC, cache=cache, branches=branches))
        cache.advance(len(tokens_T))
        return x_1TC[0]

    def logits(self, x_BTC: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, in the dtype of `x_BTC`."""
        return scores(x_BTC, self.head or self.output_weight, self.head_bias, self.config)

    @property
    def output_weight(self) -> Tensor:
        """The head's matrix (V, C): the embedding itself when tied."""
        return self.embedding if self.head is None else self.head.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        cache: KVCache | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V); the arguments are those of `hidden`."""
        return self.logits(self.hidden(tokens_BT, documents_BT=documents_BT, cache=cache, dtype=dtype, routing=routing))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences of up to `capacity` positions (default: the model's context)."""
        weight = self.embedding
        return KVCache(self.config, batch=batch, capacity=capacity, dtype=weight.dtype, device=weight.device)

    def prefill(self, tokens_BT: Tensor, cache: KVCache) -> Tensor:
        """Reads tokens behind those in the cache; logits after the last of them, shape (B, V)."""
        return self.logits(self.hidden(tokens_BT, cache=cache)[:, -1])

    def decode_step(self, token_B: Tensor, cache: KVCache) -> Tensor:
        """Reads one token per sequence; logits of the one after it, shape (B, V)."""
        return self.prefill(token_B[:, None], cache)
