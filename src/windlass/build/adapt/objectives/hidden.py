"""What layers of a student learn from layers of its teacher, beside what the heads of both say.

Each chosen layer of the student is compared with one of the teacher, at the positions that count. Where the student is
narrower, a map of its own makes its vectors as wide as the teacher's; it is trained with the student and left behind
when the student is stored (TinyBERT: Jiao et al., arXiv 1909.10351, equation 8).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windlass.build.adapt.objectives.distillation_losses import HiddenDistance, between_layers
from windlass.build.transformer.decoder import Decoder
from windlass.core.errors import InputError


class Pupil(nn.Module):
    """A student, and the maps from its width to its teacher's."""

    def __init__(self, decoder: Decoder, width: int, layers: int, seed: int) -> None:
        super().__init__()
        self.decoder = decoder
        own = decoder.config.hidden
        generator = torch.Generator().manual_seed(seed)
        drawn = (torch.randn(width, own, generator=generator) / own**0.5 for _ in range(layers))
        self.maps = nn.ParameterList() if own == width else nn.ParameterList(map(nn.Parameter, drawn))


@dataclass(frozen=True, slots=True)
class HiddenLesson:
    pairs: Sequence[tuple[int, int]]
    """Numbers of a layer of the student and of the one it learns from, counted from 0."""
    weight: float
    distance: HiddenDistance

    def __str__(self) -> str:
        named = ", ".join(f"{own + 1} from {theirs + 1}" for own, theirs in self.pairs)
        return f"what layers put out weighs {self.weight:g} ({self.distance}; layer {named})"

    def loss(
        self, maps: Sequence[Tensor], ours: Sequence[Tensor], theirs: Sequence[Tensor], counts_BT: Tensor
    ) -> Tensor:
        """Sum over the positions that count of the mean distance of all pairs, without the weight."""
        found = []
        for number, (own_BTC, their_BTD) in enumerate(zip(ours, theirs, strict=True)):
            own_NC = own_BTC[counts_BT].float()
            own_ND = own_NC @ maps[number].T if len(maps) else own_NC
            found.append(between_layers(own_ND, their_BTD[counts_BT].float(), self.distance).sum())
        return torch.stack(found).mean()


def paired(named: Sequence[str], own: int, theirs: int) -> list[tuple[int, int]]:
    """Pairs of layers as the settings name them, or each with the one at the same height (TinyBERT's uniform map).
    Raises `InputError` for a layer that is not there."""
    if not named:
        return [(layer, -(-(layer + 1) * theirs // own) - 1) for layer in range(own)]
    found = []
    for name in named:
        parts = name.split(":")
        if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
            raise InputError(f"objective.layers has {name!r}.", 'Write student:teacher, such as "2:6".')
        pair = int(parts[0]) - 1, int(parts[1]) - 1
        for what, layer, count in (("student", pair[0], own), ("teacher", pair[1], theirs)):
            if not 0 <= layer < count:
                raise InputError(
                    f"objective.layers has {name!r}, but the {what} has {count} layers.", "They count from 1."
                )
        found.append(pair)
    if len({one for one, _ in found}) < len(found):
        raise InputError("objective.layers names a layer of the student twice.", "Each learns from one.")
    return sorted(found)


@contextlib.contextmanager
def listening(model: Decoder, layers: Sequence[int]) -> Iterator[list[Tensor]]:
    """Within the block, what these layers put out in a pass, in the order of `layers`, which rises for the student."""
    found: dict[int, Tensor] = {}
    heard: list[Tensor] = []

    def listener(layer: int) -> Callable[[nn.Module, object, Tensor], None]:
        def listen(block: nn.Module, given: object, put_out: Tensor) -> None:
            found[layer] = put_out

        return listen

    hooks = [model.blocks[layer].register_forward_hook(listener(layer)) for layer in set(layers)]
    try:
        yield heard
        heard += [found[layer] for layer in layers]
    finally:
        for hook in hooks:
            hook.remove()
