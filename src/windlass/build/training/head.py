"""Cross-entropy of the head, a chunk of positions at a time.

The logits of a whole batch are often the largest tensor of a training step: 16,384 positions and a vocabulary of
50,000 take 3 GB in float32, and their gradient as much again. So the head works on some positions at a time, and takes
the gradients of a chunk while its logits are there; the backward pass only scales them. No product is computed twice,
unlike with activation checkpointing. The idea is that of Wijmans et al. (arXiv 2411.09009) and of Liger Kernel (Hsu
et al., arXiv 2410.10989), here with PyTorch's own kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from windlass.build.training.data.batches import IGNORE

Head = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Vectors (N, C) and targets (N) -> sum of nats over the targets that count, and how many were the likeliest token
(or whatever sums else are to be known, in one tensor)."""

LogitsOf = Callable[[Tensor], Tensor]
"""Vectors (N, C) -> logits (N, V)."""

_LOGITS = 1 << 25
"""Numbers that the logits of one chunk may hold: 64 MB in bfloat16."""
_CACHED = 1 << 22
_PAD = 128


def head_of(model: nn.Module, *, accuracy: bool = False) -> Head:
    """The head with its loss in one piece; the logits are normalised in float32 whatever their dtype."""
    logits_of: Callable[[Tensor], Tensor] = model.logits  # type: ignore[assignment]

    def head(x_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_NV = logits_of(x_NC).float()
        nats = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORE, reduction="sum")
        if not accuracy or torch.is_grad_enabled():  # a training step asks for the loss only
            return nats, torch.zeros((), device=x_NC.device)
        return nats, (logits_NV.argmax(-1) == targets_N).sum()

    return head


def chunk_size(vocabulary: int, *, trained: bool = True) -> int:
    """Positions in a chunk. Of a head that is trained as many as fit, since each chunk reads its matrix and writes its
    gradient; of a frozen one on a CPU few, whose logits stay in its cache between one pass over them and the next.
    """
    return max(256, (_LOGITS if trained or torch.cuda.is_available() else _CACHED) // vocabulary)


def cross_entropy(
    head: Head, x_BTC: Tensor, targets_BT: Tensor, weights: Sequence[nn.Parameter], chunk: int
) -> tuple[Tensor, Tensor]:
    """Sum of nats over the targets that count, and how many of them were the likeliest token.

    `weights` are the parameters that `head` uses. The head does not see positions that do not count, when many do not.
    """
    x_NC, targets_N = x_BTC.flatten(0, -2), targets_BT.flatten()
    counted = targets_N != IGNORE
    count = int(counted.sum())
    if count < 0.9 * len(targets_N) or len(targets_N) % _PAD:
        # Filled up to a multiple, so that a compiled head meets few shapes.
        places = torch.nonzero(counted).flatten()
        filling = -count % _PAD
        x_NC = F.pad(x_NC[places], (0, 0, 0, filling))
        targets_N = F.pad(targets_N[places], (0, filling), value=IGNORE)
    if len(targets_N) <= chunk:
        return head(x_NC, targets_N)
    if not torch.is_grad_enabled():
        parts = [head(x, t) for x, t in zip(torch.split(x_NC, chunk), torch.split(targets_N, chunk))]
        return torch.stack([nats for nats, _ in parts]).sum(), torch.stack([right for _, right in parts]).sum(0)
    apply: Callable[..., tuple[Tensor, Tensor]] = _Chunked.apply
    return apply(head, x_NC, targets_N, chunk, *weights)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, head: Head, x_NC: Tensor, targets_N: Tensor, chunk: int, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), device=x_NC.device)
        total_right = torch.zeros((), device=x_NC.device)
        gradient_NC = torch.empty_like(x_NC)
        gradients: list[Tensor | None] = [None] * len(weights)
        for start in range(0, len(x_NC), chunk):
            stop = start + chunk
            with torch.enable_grad():
                part = x_NC[start:stop].detach().requires_grad_()
                nats, right = head(part, targets_N[start:stop])
                found = torch.autograd.grad(nats, [part, *weights], allow_unused=True)
            total, total_right = total + nats.detach(), total_right + right
            gradient_NC[start:stop] = found[0]
            for i, gradient in enumerate(found[1:]):
                if gradient is not None:
                    known = gradients[i]
                    gradients[i] = gradient if known is None else known.add_(gradient)
        ctx.save_for_backward(gradient_NC, *gradients)
        ctx.mark_non_differentiable(total_right)
        return total, total_right

    @staticmethod
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradient_NC, *gradients = ctx.saved_tensors
        scaled = (None if g is None else g * scale.to(g.dtype) for g in gradients)
        return (None, gradient_NC * scale.to(gradient_NC.dtype), None, None, *scaled)


def token_nats(
    logits_of: LogitsOf, x_BTC: Tensor, targets_BT: Tensor, weights: Sequence[nn.Parameter], chunk: int
) -> Tensor:
    """Nats of each target, (B, T) float32, and 0 where a target does not count: for losses that are no sum of them.

    As in `cross_entropy`, no more than `chunk` positions have logits at a time. `weights`: the parameters that
    `logits_of` uses and that are trained.
    """
    x_NC, targets_N = x_BTC.flatten(0, -2), targets_BT.flatten()
    places = torch.nonzero(targets_N != IGNORE).flatten()
    x_NC, targets_N = x_NC[places], targets_N[places]
    if len(places) <= chunk:
        nats_N = _nats(logits_of, x_NC, targets_N)
    elif not torch.is_grad_enabled():
        parts = zip(torch.split(x_NC, chunk), torch.split(targets_N, chunk), strict=True)
        nats_N = torch.cat([_nats(logits_of, x, targets) for x, targets in parts])
    else:
        apply: Callable[..., Tensor] = _ChunkedNats.apply
        nats_N = apply(logits_of, x_NC, targets_N, chunk, *weights)
    return nats_N.new_zeros(targets_BT.numel()).index_copy(0, places, nats_N).view(targets_BT.shape)


def _nats(logits_of: LogitsOf, x_NC: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(logits_of(x_NC).float(), targets_N, reduction="none")


class _ChunkedNats(torch.autograd.Function):
    """What the targets weigh is known only when all of them are. A vector's own gradient is proportional to that
    weight, so it is taken at once; that of the head is not, so where it is trained, logits are computed again."""

    @staticmethod
    def forward(
        ctx: Any, logits_of: LogitsOf, x_NC: Tensor, targets_N: Tensor, chunk: int, *weights: nn.Parameter
    ) -> Tensor:
        ctx.logits_of, ctx.chunk, ctx.weights = logits_of, chunk, weights
        nats: list[Tensor] = []
        gradients: list[Tensor] = []
        for x, targets in zip(torch.split(x_NC, chunk), torch.split(targets_N, chunk), strict=True):
            with torch.set_grad_enabled(not weights):
                part = x.detach().requires_grad_(not weights)
                found = _nats(logits_of, part, targets)
            nats.append(found.detach())
            if not weights:
                gradients += torch.autograd.grad(found, part, torch.ones_like(found))
        ctx.save_for_backward(torch.cat(gradients) if gradients else x_NC, targets_N)
        return torch.cat(nats)

    @staticmethod
    def backward(ctx: Any, scale_N: Tensor) -> tuple[Tensor | None, ...]:
        kept_NC, targets_N = ctx.saved_tensors
        if not ctx.weights:
            return (None, kept_NC * scale_N[:, None].to(kept_NC.dtype), None, None)
        gradients: list[Tensor] = []
        sums: list[Tensor | None] = [None] * len(ctx.weights)
        pieces = (torch.split(tensor, ctx.chunk) for tensor in (kept_NC, targets_N, scale_N))
        for x, targets, scale in zip(*pieces, strict=True):
            with torch.enable_grad():
                part = x.detach().requires_grad_()
                nats = _nats(ctx.logits_of, part, targets)
            first, *others = torch.autograd.grad(nats, [part, *ctx.weights], scale, allow_unused=True)
            gradients.append(first)
            for i, other in enumerate(others):
                if other is not None:
                    known = sums[i]
                    sums[i] = other if known is None else known.add_(other)
        return (None, torch.cat(gradients), None, None, *sums)
