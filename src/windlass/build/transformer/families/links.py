"""The table between our tensors and a checkpoint's: one `Link` per tensor, fused or split ones included.

It is read in both directions, so loading, saving and the comparison of gradients use the same lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from windlass.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Link:
    """One of ours is one of theirs, unless one side has several names.

    Several of ours: theirs is their concatenation along the first dimension (fused query, key and value). Several of
    theirs: ours is their stack (the experts).
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    transposed: bool = False
    """Theirs holds (inputs, outputs), as GPT-2's Conv1D does."""
    unused: int = 0
    """First rows of theirs that nothing looks up."""

    def export(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Ours -> theirs."""
        if len(self.theirs) > 1:
            return {name: part.contiguous() for name, part in zip(self.theirs, state[self.ours[0]], strict=True)}
        whole = state[self.ours[0]] if len(self.ours) == 1 else torch.cat([state[name] for name in self.ours])
        if self.unused:
            whole = torch.cat([whole.new_zeros(self.unused, *whole.shape[1:]), whole])
        return {self.theirs[0]: (whole.T if self.transposed else whole).contiguous()}

    def shapes(self, state: Mapping[str, Tensor]) -> dict[str, list[int]]:
        """What each of theirs must measure."""
        if len(self.theirs) > 1:
            return {name: list(state[self.ours[0]].shape[1:]) for name in self.theirs}
        rows = self.unused + sum(state[name].shape[0] for name in self.ours)
        shape = [rows, *state[self.ours[0]].shape[1:]]
        return {self.theirs[0]: shape[::-1] if self.transposed else shape}

    def fill(self, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Theirs -> ours, in place; the shapes are known to fit."""
        if len(self.theirs) > 1:
            for row, name in zip(state[self.ours[0]], self.theirs, strict=True):
                row.copy_(tensors[name])
            return
        whole = tensors[self.theirs[0]]
        whole = (whole.T if self.transposed else whole)[self.unused :]
        for name, part in zip(self.ours, torch.split(whole, [state[name].shape[0] for name in self.ours]), strict=True):
            state[name].copy_(part)


def same(ours: str, theirs: str) -> Link:
    return Link((ours,), (theirs,))


def both(ours: str, theirs: str) -> list[Link]:
    """Weight and bias of a layer."""
    return [same(f"{ours}.{kind}", f"{theirs}.{kind}") for kind in ("weight", "bias")]


@torch.no_grad()
def fill(
    state: Mapping[str, Tensor],
    links: Sequence[Link],
    tensors: Mapping[str, Tensor],
    where: str,
) -> None:
    """Copies a checkpoint's tensors into `state`.

    Raises `InputError` naming the first tensor that is unknown, missing or of another shape.
    """
    hint = "Weights and config disagree."
    known = {name for link in links for name in link.theirs}
    if unknown := sorted(set(tensors) - known):
        raise InputError(f"{where}: the weights hold an unknown tensor '{unknown[0]}'.", hint)
    for link in links:
        found = {name: tensors[name] for name in link.theirs if name in tensors}
        for name, shape in link.shapes(state).items():
            if name not in found:
                raise InputError(f"{where}: the weights lack the tensor '{name}'.", hint)
            if list(found[name].shape) != shape:
                raise InputError(
                    f"{where}: '{name}' has shape {list(found[name].shape)}, but config.json says {shape}.", hint
                )
        link.fill(state, found)


def export(state: Mapping[str, Tensor], links: Iterable[Link]) -> dict[str, Tensor]:
    """`state` under the checkpoint's names; gradients go the same way."""
    return {name: tensor for link in links for name, tensor in link.export(state).items()}
