"""The decoder: tokens in, logits of the next token out.

    model = Decoder(config)                         # weights are empty until `init.initialise` or `hf.load_decoder`
    logits_BTV = model(tokens_BT)                   # training: a whole sequence at once
    logits_BTV = model(tokens_BT, dtype=torch.bfloat16)   # the same with bfloat16 activations

Writing text, one position at a time, with a cache of keys and values:

    with torch.inference_mode():
        cache = model.new_cache(batch=1)
        logits_BV = model.prefill(tokens_BT, cache)     # the prompt; logits after its last token
        while ...:
            token_B = choose(logits_BV)
            logits_BV = model.decode_step(token_B, cache)

`cache.length` is the number of positions read, `cache.room` how many more fit, `cache.truncate(n)` goes back.
A prompt may be read in several `prefill` calls. `model.config` is a `DecoderConfig`; `hf.load_decoder(folder)`
reads a Hugging Face Llama folder, `hf.save_decoder` writes one. Sequences of one batch have equal length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.transformer.attention import Attention
from windlass.build.transformer.cache import KVCache
from windlass.build.transformer.config import DecoderConfig
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import SwiGLU
from windlass.build.transformer.norm import RMSNorm
from windlass.build.transformer.rope import rotations
from windlass.core.errors import InputError


class Block(nn.Module):
    """One layer: attention, then the MLP, each on a normalised copy and added to the residual stream."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden, config.norm_eps)
        self.attention = Attention(config, layer)
        self.mlp_norm = RMSNorm(config.hidden, config.norm_eps)
        self.mlp = SwiGLU(config)

    def forward(self, x_BTC: Tensor, cos_TD: Tensor, sin_TD: Tensor, cache: KVCache | None = None) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), cos_TD, sin_TD, cache)
        return x_BTC + self.mlp(self.mlp_norm(x_BTC))


class Decoder(nn.Module):
    __call__: Callable[..., Tensor]
    cos_TD: Tensor
    sin_TD: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)
        self.head = None if config.tied else Linear(config.hidden, config.vocab_size)
        self.register_buffer("cos_TD", torch.empty(0), persistent=False)
        self.register_buffer("sin_TD", torch.empty(0), persistent=False)
        self.reset_rotations()

    def reset_rotations(self) -> None:
        """Computes the rotary tables, which are not stored with the weights."""
        config = self.config
        self.cos_TD, self.sin_TD = rotations(config.context, config.head_dim, config.rope_theta)

    def hidden(self, tokens_BT: Tensor, cache: KVCache | None = None, dtype: torch.dtype | None = None) -> Tensor:
        """The normalised residual stream after the last block, shape (B, T, C).

        `dtype` is the precision of the activations (None: that of the weights). Raises `InputError` when the
        sequence is longer than the model reads.
        """
        start = cache.length if cache is not None else 0
        end = start + tokens_BT.shape[1]
        if end > self.config.context:
            raise InputError(
                f"The sequence has {end} tokens, but the model reads at most {self.config.context}.",
                "Shorten the prompt or ask for fewer new tokens.",
            )
        cos_TD, sin_TD = self.cos_TD[start:end], self.sin_TD[start:end]
        x_BTC = F.embedding(tokens_BT, self.embedding)
        if dtype is not None:
            x_BTC = x_BTC.to(dtype)
        for block in self.blocks:
            x_BTC = block(x_BTC, cos_TD, sin_TD, cache)
        if cache is not None:
            cache.advance(tokens_BT.shape[1])
        return self.norm(x_BTC)

    def logits(self, x_BTC: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, in the dtype of `x_BTC`."""
        return F.linear(x_BTC, self.output_weight.to(x_BTC.dtype))

    @property
    def output_weight(self) -> Tensor:
        """The head's matrix (V, C): the embedding itself when tied."""
        return self.embedding if self.head is None else self.head.weight

    def forward(self, tokens_BT: Tensor, cache: KVCache | None = None, dtype: torch.dtype | None = None) -> Tensor:
        return self.logits(self.hidden(tokens_BT, cache, dtype))

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `batch` sequences of up to `capacity` positions (default: the model's context)."""
        weight = self.embedding
        return KVCache(self.config, batch=batch, capacity=capacity, dtype=weight.dtype, device=weight.device)

    def prefill(self, tokens_BT: Tensor, cache: KVCache) -> Tensor:
        """Reads tokens behind those in the cache; logits after the last of them, shape (B, V)."""
        return self.logits(self.hidden(tokens_BT, cache)[:, -1])

    def decode_step(self, token_B: Tensor, cache: KVCache) -> Tensor:
        """Reads one token per sequence; logits of the one after it, shape (B, V)."""
        return self.prefill(token_B[:, None], cache)
