"""An encoder that judges: whole texts by one vector each, or every token of them.

    model = load_classifier(folder)                          # BertForSequenceClassification, ModernBertFor...
    logits_BL = model(tokens_1T, lengths)                    # one row of whole texts, one after another
    logits_BL = model(tokens_1T, lengths, types_BT=types)    # pairs, where the model knows types of segments

Cross-encoders are such models with one label, which says how well the second text answers the first (Nogueira & Cho,
arXiv 1901.04085). One that judges tokens gives logits (T, L): tags of words, or, with two labels, where an answer
begins and ends (Devlin et al., arXiv 1810.04805, section 4.2). How such models lie in folders: `classifier_files.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from windlass.build.transformer.config import TransformerConfig
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.linear import Linear
from windlass.build.transformer.mlp import ACTIVATIONS
from windlass.build.transformer.norm import norm_of

Kind = Literal["one of", "any of", "number"]
Task = Literal["texts", "tokens", "spans"]


@dataclass(frozen=True, slots=True)
class Head:
    """What stands behind the encoder."""

    labels: tuple[str, ...]
    kind: Kind
    """The labels exclude each other, or not, or each is a number."""
    pooling: Literal["first", "mean"]
    bias: bool
    """Of the dense layer."""
    activation: str
    normed: bool
    task: Task = "texts"
    """What is judged; `spans`: each token, as the first and as the last one of an answer."""
    dense: bool = True
    """Whether there is a dense layer before the scores."""


class Classifier(nn.Module):
    __call__: Callable[..., Tensor]

    def __init__(self, config: TransformerConfig, head: Head) -> None:
        super().__init__()
        self.head = head
        self.encoder = Encoder(config)
        self.dense = Linear(config.hidden, config.hidden, head.bias) if head.dense else None
        self.activation = torch.tanh if head.activation == "tanh" else ACTIVATIONS[head.activation]
        self.norm = norm_of(config) if head.normed else nn.Identity()
        self.output = Linear(config.hidden, len(head.labels), bias=True)

    def forward(
        self,
        tokens_1T: Tensor,
        lengths: Sequence[int],
        *,
        types_BT: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Logits (texts, labels), or (tokens, labels), in float32; the arguments are those of `Encoder.hidden`."""
        x_TC = self.encoder.hidden(tokens_1T, lengths=lengths, types_BT=types_BT, dtype=dtype)[0]
        # What stands behind the encoder is a speck beside it, so it may as well be exact.
        x_BC = (_pooled(x_TC, lengths, self.head.pooling) if self.head.task == "texts" else x_TC).float()
        if self.dense is not None:
            x_BC = self.norm(self.activation(self.dense(x_BC)))
        logits_BL: Tensor = self.output(x_BC)
        return logits_BL


def _pooled(x_TC: Tensor, lengths: Sequence[int], pooling: Literal["first", "mean"]) -> Tensor:
    """One vector a text, (B, C)."""
    if pooling == "mean":
        return torch.stack([text_TC.float().mean(0) for text_TC in torch.split(x_TC, list(lengths))])
    ends_B = torch.tensor(lengths, device=x_TC.device).cumsum(0)
    return x_TC[ends_B - torch.tensor(lengths, device=x_TC.device)]
