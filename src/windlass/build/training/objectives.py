"""Training objectives: pure functions of a model and a batch.

Each gives a *sum* and says over how much it was summed. Whoever adds up several passes divides once, by the whole
count: the loss and its gradients are then those of one large batch, however the counted tokens are spread over it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.training.data.batches import Batch
from windlass.build.training.head import Head, chunk_size, cross_entropy, head_of
from windlass.build.transformer.block import Block
from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.encoder import Encoder
from windlass.build.transformer.encoder_decoder import EncoderDecoder
from windlass.build.transformer.model import Model
from windlass.build.transformer.pooling import mean_pool


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
    """Of the balancing loss of experts. This and the next are part of what is learned."""
    temperature: float = 0.05
    """Of the contrastive softmax."""
    by_text: bool = False
    """Each text of a row looks at itself alone, instead of a row at all of itself through a mask: for decoders whose
    blocks are not compiled, since the shapes are others in every pass."""


def arithmetic(
    model: Model,
    *,
    dtype: torch.dtype | None = None,
    chunk: int | None = None,
    accuracy: bool = False,
    routing_weight: float = 0.0,
    temperature: float = 0.05,
    compiler: Callable[[Head], Head] | None = None,
    by_text: bool = False,
) -> Arithmetic:
    """The usual arithmetic of a model. `accuracy` also counts how often the likeliest token was right."""

    def weights() -> Sequence[nn.Parameter]:
        inside = {id(p) for block in model.modules() if isinstance(block, Block) for p in block.parameters()}
        return [p for p in model.parameters() if id(p) not in inside and p.requires_grad]

    head = head_of(model, accuracy=accuracy)
    return Arithmetic(
        head if compiler is None else compiler(head),
        weights,
        chunk or chunk_size(model.config.vocab_size, trained=bool(weights())),
        dtype,
        routing_weight,
        temperature,
        by_text,
    )


def causal(model: Decoder, batch: Batch, math: Arithmetic) -> Loss:
    """Negative log-likelihood of each token given those before it."""
    routing = routing_of(model)
    if math.by_text and batch.documents_BT is not None:
        order_N, lengths = texts_of(batch.documents_BT)
        tokens_N, targets = batch.inputs_BT.flatten()[order_N], batch.targets_BT.flatten()[order_N]
        x = model.hidden_of_texts(tokens_N, lengths, dtype=math.dtype, routing=routing)
    else:
        targets = batch.targets_BT
        x = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    nats, right = cross_entropy(math.head, x, targets, math.weights(), math.chunk)
    return balanced(Loss(nats, batch.counted, {"right": right}), routing, math)


def masked(model: Encoder, batch: Batch, math: Arithmetic) -> Loss:
    """Negative log-likelihood of the hidden tokens, given the others on both sides."""
    routing = routing_of(model)
    x_BTC = model.hidden(batch.inputs_BT, documents_BT=batch.documents_BT, dtype=math.dtype, routing=routing)
    nats, right = cross_entropy(math.head, x_BTC, batch.targets_BT, math.weights(), math.chunk)
    return balanced(Loss(nats, batch.counted, {"right": right}), routing, math)


def spans(model: EncoderDecoder, batch: Batch, math: Arithmetic) -> Loss:
    """Negative log-likelihood of what stood in the gaps of the source, sentinels and end included."""
    routing = routing_of(model)
    x_BTC = model.hidden(
        needed(batch.source_BS),
        batch.inputs_BT,
        source_documents_BS=batch.source_documents_BS,
        target_documents_BT=batch.documents_BT,
        dtype=math.dtype,
        routing=routing,
    )
    nats, right = cross_entropy(math.head, x_BTC, batch.targets_BT, math.weights(), math.chunk)
    return balanced(Loss(nats, batch.counted, {"right": right}), routing, math)


def contrastive(model: Encoder, batch: Batch, math: Arithmetic) -> Loss:
    """InfoNCE (van den Oord et al., arXiv 1807.03748): which of the batch's second passages follows a first one, and
    the other way round; the mean of both, for each pair. The other pairs of the pass are the wrong answers."""

    def vectors(tokens_BT: Tensor, documents_BT: Tensor) -> Tensor:
        x_BTC = model.hidden(tokens_BT, documents_BT=documents_BT, dtype=math.dtype)
        return F.normalize(mean_pool(x_BTC.float(), documents_BT == 0), dim=-1)

    first_BC = vectors(needed(batch.source_BS), needed(batch.source_documents_BS))
    second_BC = vectors(batch.inputs_BT, needed(batch.documents_BT))
    scores_BB = first_BC @ second_BC.T / math.temperature
    own_B = batch.targets_BT[:, 0]
    nats = (
        F.cross_entropy(scores_BB, own_B, reduction="sum") + F.cross_entropy(scores_BB.T, own_B, reduction="sum")
    ) / 2
    return Loss(nats, batch.counted, {"right": (scores_BB.detach().argmax(-1) == own_B).sum()})


def texts_of(documents_BT: Tensor) -> tuple[Tensor, list[int]]:
    """The texts that rows hold, shortest first: where their tokens stand in all rows one behind the other, (tokens),
    and how many each has. Positions of negative documents are padding, and none of them is there."""
    rows, positions = documents_BT.shape
    first_BT = F.pad(documents_BT[:, 1:] != documents_BT[:, :-1], (1, 0), value=True)
    starts_D = torch.nonzero(first_BT.flatten()).flatten()
    lengths_D = torch.diff(starts_D, append=starts_D.new_tensor([rows * positions]))
    there_D = documents_BT.flatten()[starts_D] >= 0
    lengths_D, by_length_D = torch.sort(lengths_D[there_D], stable=True)
    starts_D = starts_D[there_D][by_length_D]
    before_D = lengths_D.cumsum(0) - lengths_D
    within_N = torch.arange(int(lengths_D.sum()), device=documents_BT.device)
    return within_N + torch.repeat_interleave(starts_D - before_D, lengths_D), lengths_D.tolist()


def needed(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "the batch was made for another objective"
    return tensor


def routing_of(model: Model) -> list[Tensor] | None:
    """Where the experts of a model put their balancing losses; None when it has none."""
    return None if model.config.experts is None else []


def balanced(loss: Loss, routing: list[Tensor] | None, math: Arithmetic) -> Loss:
    """The loss with the experts' balancing losses added, weighted as if each counted target carried their mean."""
    if not routing:
        return loss
    imbalance = torch.stack(routing).mean() * loss.counted
    metrics = {**loss.metrics, "imbalance": imbalance.detach()}
    return Loss(loss.sum + math.routing_weight * imbalance, loss.counted, metrics)
