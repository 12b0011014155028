"""The encoder: every position sees the whole text, and its vector stands for its token in that context.

    model = Encoder(config)                             # weights are empty until `init.initialise` or `hf.load_model`
    x_BTC = model.hidden(tokens_BT)                     # contextual vectors
    logits_BTV = model.logits(x_BTC)                    # masked-LM head: scores of the token behind each mask
    vector_BC = mean_pool(x_BTC, real_BT)               # one vector per row (`pooling.py`)

Padding is a document of its own: `documents_BT = torch.where(real_BT, 0, -1)`. Several texts in one row are told apart
by `documents_BT` too, or, when the row holds nothing else, by their `lengths`: attention then runs on every stretch of
neighbours of equal length as on an ordinary batch, without a mask. Texts sorted by length waste nothing that way, and
what a text gives does not depend on its neighbours.

BERT: Devlin et al. (arXiv 1810.04805); ModernBERT: Warner et al. (arXiv 2412.13663).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import ACTIVATIONS
from windlass.build.transformer.norm import norm_of
from windlass.build.transformer.stack import Stack
from windlass.build.transformer.vocabulary import embed, scores
from windlass.core.errors import InputError


class Transform(nn.Module):
    """What masked-LM models put before the head: a dense layer, the activation and a norm."""

    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden, config.hidden, config.mlp_bias)
        self.norm = norm_of(config)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x_BTC: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.activation(self.dense(x_BTC)))
        return normalised


class Encoder(Stack):
    def __init__(self, config: TransformerConfig) -> None:
        if config.causal:
            raise InputError("Model configuration: an encoder is not causal.", "Set causal = false, or make a Decoder.")
        super().__init__(config)
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.by_rows = False
        """Whether the embedding's gradient is sparse, as whoever trains it may wish."""
        self.transform = Transform(config) if config.head_transform else None
        self.head = None if config.tied or config.headless else Linear(config.hidden, config.vocab_size)
        self.head_bias = nn.Parameter(torch.empty(config.vocab_size)) if config.head_bias else None

    def hidden(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """Contextual vectors, normalised, (B, T, C).

        `documents_BT` (int64): the document that each position belongs to; attention stays inside it and positions
        restart. `lengths`: the same said faster, when tokens_BT is one row (1, T) of nothing but whole texts.
        `types_BT` (int64): 0 for the first and 1 for the second text of a pair, where the model knows types. `dtype`:
        precision of the activations. Raises `InputError` when a text is longer than the model reads.
        """
        x_BTC = embed(tokens_BT, self.embedding, self.config, dtype, by_rows=self.by_rows)
        x_BTC, sights = self.enter(x_BTC, documents_BT, types_BT=types_BT, lengths=lengths)
        return self.through(x_BTC, sights, routing)[:, : tokens_BT.shape[1]]

    def logits(self, x_BTC: Tensor) -> Tensor:
        """The masked-LM head: scores of every token of the vocabulary at every position, in the dtype of `x_BTC`."""
        if self.transform is not None:
            x_BTC = self.transform(x_BTC)
        return scores(x_BTC, self.head or self.output_weight, self.head_bias, self.config)

    @property
    def output_weight(self) -> Tensor:
        """The head's matrix (V, C): the embedding itself when tied. Raises `InputError` when there is no head."""
        if self.config.headless:
            raise InputError(
                "This encoder has no masked-LM head: it makes vectors only.",
                "Load a checkpoint saved with its head (BertForMaskedLM), or train one.",
            )
        return self.embedding if self.head is None else self.head.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        documents_BT: Tensor | None = None,
        types_BT: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        dtype: torch.dtype | None = None,
        routing: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the masked-LM head; the arguments are those of `hidden`."""
        return self.logits(
            self.hidden(
                tokens_BT, documents_BT=documents_BT, types_BT=types_BT, lengths=lengths, dtype=dtype, routing=routing
            )
        )
