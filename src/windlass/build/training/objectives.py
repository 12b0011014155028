"""Training objectives: pure functions of a model and a batch.

Each gives a *sum* and says over how much it was summed. Whoever adds up several passes divides once, by the whole
count: the loss and its gradients are then those of one large batch, however the counted tokens are spread over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from windlass.build.training.batches import Batch
from windlass.build.training.head import Head, chunk_size, cross_entropy, head_of
from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder


@dataclass(frozen=True, slots=True)
class Loss:
    sum: Tensor
    """Nats, over all that was counted; what is differentiated."""
    counted: int
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Further sums over what was counted."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a pass is computed, which changes its speed and memory but nothing of what it means."""

    head: Head
    weights: Callable[[], Sequence[nn.Parameter]]
    """Parameters that `head` may use; asked for in each pass, since FSDP2 puts others in their places."""
    chunk: int
    """Positions that the head works on at a time."""
    dtype: torch.dtype | None = None
    """Precision of the activations; None: that of the weights."""
    routing_weight: float = 0.0
    """Of the balancing loss of experts: the one thing here that is part of the objective."""


def arithmetic(
    model: Decoder,
    *,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
    accuracy: bool = False,
    routing_weight: float = 0.0,
    compiler: Callable[[Head], Head] | None = None,
) -> Arithmetic:
    """The usual arithmetic of a model. `accuracy` also counts how often the likeliest token was right."""

    def weights() -> Sequence[nn.Parameter]:
        inside = {id(p) for block in model.modules() if isinstance(block, Block) for p in block.parameters()}
        return [p for p in model.parameters() if id(p) not in inside]

    head = head_of(model, accuracy=accuracy)
    return Arithmetic(
        head if compiler is None else compiler(head),
        weights,
        chunk or chunk_size(model.config.vocab_size),
        dtype,
        routing_weight,
    )


def causal(model: Decoder, batch: Batch, math: Arithmetic) -> Loss:
    """Negative log-likelihood of each token given those before it."""
    routing = routing_of(model)
    x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    nats, right = cross_entropy(math.head, x_BTC, batch.targets_BT, math.weights(), math.chunk)
    return balanced(Loss(nats, batch.counted, {"right": right}), routing, math)


def routing_of(model: Decoder) -> list[Tensor] | None:
    """Where the experts of a model put their balancing losses; None when it has none."""
    return None if model.config.experts is None else []


def balanced(loss: Loss, routing: list[Tensor] | None, math: Arithmetic) -> Loss:
    """The loss with the experts' balancing losses added, weighted as if each counted target carried their mean."""
    if not routing:
        return loss
    imbalance = torch.stack(routing).mean() * loss.counted
    metrics = {**loss.metrics, "imbalance": imbalance.detach()}
    return Loss(loss.sum + math.routing_weight * imbalance, loss.counted, metrics)
