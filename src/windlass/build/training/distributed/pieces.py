"""Which rows of a tensor this process holds: all of them, or its share of one that FSDP2 spread over the workers.

FSDP2 (`fully_shard`) cuts every parameter along its first dimension, as `torch.chunk` does, and shows it as a
`DTensor`. Everything that has to look inside one is here, so that checkpoints need not know about parallelism.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

from windlass.core.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Piece:
    rows: Tensor
    """Rows of the whole tensor; the memory of the tensor itself, not a copy."""
    first: int
    """Number of the first of them; 0 for a tensor that is not cut."""
    shape: tuple[int, ...]
    """Of the whole tensor."""
    cut: bool
    """Whether other workers hold the other rows; else every worker holds them all."""


def piece_of(tensor: Tensor) -> Piece:
    """This worker's part of `tensor`. Raises `Unsupported` for a layout other than FSDP2's."""
    detached = tensor.detach()
    if not isinstance(detached, DTensor):
        return Piece(detached, 0, tuple(detached.shape), cut=False)
    if detached.placements != (Shard(0),):
        raise Unsupported(f"A tensor is laid out as {detached.placements}; only a cut along its rows can be saved.")
    mesh = detached.device_mesh
    share = -(-detached.shape[0] // mesh.size())
    first = min(mesh.get_local_rank() * share, detached.shape[0])
    return Piece(detached.to_local(), first, tuple(detached.shape), cut=True)


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor on every worker. All workers must call it together, for each of their pieces travels."""
    detached = tensor.detach()
    return detached.full_tensor() if isinstance(detached, DTensor) else detached


@torch.no_grad()
def fill(target: Tensor, source: Tensor) -> None:
    """Copies this worker's part of the whole tensor `source` into `target`. No worker waits for another."""
    piece = piece_of(target)
    rows = source if not piece.cut else source[piece.first : piece.first + piece.rows.shape[0]]
    piece.rows.copy_(rows)
