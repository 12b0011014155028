"""Whole models merged tensor by tensor: what is in memory is one tensor of each model, and one file of the result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from windlass.build.adapt.merging.methods import agreed, chance, dot, dropped, slerp, trimmed, weighted
from windlass.build.adapt.merging.settings import Merging
from windlass.build.adapt.merging.sources import Opened, Source, opened_together
from windlass.build.transformer.hf import SHARD, write_shards
from windlass.core.errors import InputError

Say = Callable[[str], None]
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_EVERY = 10.0
"""Seconds between two signs of life."""


@dataclass(slots=True)
class Outcome:
    """What was really done."""

    tensors: int = 0
    parameters: int = 0
    files: int = 0
    far: list[float] | None = None
    """How far each model is from the base, as a share of the base's length."""
    kept: list[float] | None = None
    """Share of each task vector's numbers that went in: not dropped, and not 0 from the start."""


class _Tally:
    """Lengths and counts, summed over tensors."""

    def __init__(self, models: int) -> None:
        self.base, self.numbers = 0.0, 0
        self.apart, self.kept = [0.0] * models, [0] * models

    def outcome(self, tensors: int, files: int, on_base: bool) -> Outcome:
        length = math.sqrt(self.base)
        far = [math.sqrt(one) / length if length else math.inf for one in self.apart] if on_base else None
        kept = [one / self.numbers for one in self.kept] if on_base else None
        return Outcome(tensors, self.numbers, files, far, kept)


@torch.no_grad()
def merge_folders(
    models: Sequence[Source],
    base: Source | None,
    asked: Merging,
    folder: Path,
    *,
    dtype: str | None = None,
    file_bytes: int = SHARD,
    say: Say = print,
) -> Outcome:
    """Writes the weights of the merge to `folder`, in files of at most `file_bytes`. `dtype`: what they are stored in;
    None: each as it is in the first model. It is computed in float32.

    Raises `InputError` for models that do not fit together, naming the field, token or tensor, and for numbers that are
    not finite.
    """
    asked.check(len(models), base is not None)
    weights = asked.shares(len(models))
    tally = _Tally(len(models))
    with opened_together([*models, *([] if base is None else [base])]) as opened:
        began = said = time.monotonic()
        done = 0

        def tensor_of(name: str) -> Tensor:
            nonlocal said, done
            made = _merged(opened, name, weights, asked, tally).to(_type(opened, name, dtype)).contiguous()
            _check_finite(name, made)
            done += 1
            if time.monotonic() - said > _EVERY:
                said, share = time.monotonic(), done / len(opened.names)
                say(f"  {share:.0%} merged, {(said - began) * (1 / share - 1):.0f} s to go")
            return made

        files = write_shards(
            folder, {name: _bytes(opened, name, dtype) for name in opened.names}, tensor_of, file_bytes
        )
    return tally.outcome(done, files, base is not None)


def _merged(opened: Opened, name: str, weights: Sequence[float], asked: Merging, tally: _Tally) -> Tensor:
    """The tensor in float32, or as it is where it holds no fractions."""
    tensors = opened.each(name)
    tally.numbers += tensors[0].numel()
    if not tensors[0].is_floating_point():
        if any(not torch.equal(one, tensors[0]) for one in tensors):
            raise InputError(f"'{name}' holds whole numbers, which differ from model to model.", "They have no mean.")
        return tensors[0]
    for one in tensors:
        _check_finite(name, one)
    if not asked.on_base:
        floats = [one.float() for one in tensors]
        return slerp(floats[0], floats[1], weights[1]) if asked.method == "slerp" else weighted(floats, weights)
    base = tensors.pop().float()
    tally.base += dot(base, base)
    deltas: list[Tensor] = []
    while tensors:
        number = len(deltas)
        delta = tensors.pop(0).float() - base
        tally.apart[number] += dot(delta, delta)
        if asked.method == "ties":
            delta = trimmed(delta, asked.kept)
        else:
            delta = dropped(delta, asked.kept, chance(asked.seed, opened.copies.get(name, name), number))
        tally.kept[number] += int(delta.count_nonzero())
        deltas.append(delta)
    if asked.method == "dare_linear":
        return base.add_(weighted(deltas, weights), alpha=asked.scale)
    for delta, weight in zip(deltas, weights, strict=True):
        delta *= weight
    return base.add_(agreed(deltas, deltas, weights), alpha=asked.scale)


def _bytes(opened: Opened, name: str, dtype: str | None) -> int:
    return math.prod(opened.tensors[0].measure(name)[0]) * _type(opened, name, dtype).itemsize


def _type(opened: Opened, name: str, dtype: str | None) -> torch.dtype:
    """What a tensor is stored in. Raises `InputError` for numbers of a few bits, which cannot be averaged."""
    kinds = [one.measure(name)[1] for one in opened.tensors]
    own = [_FLOATS.get(kind) for kind in kinds]
    if all(own):
        return TYPES[dtype] if dtype is not None else own[0] or torch.float32
    if len(set(kinds)) == 1 and kinds[0] in ("I64", "I32"):
        return {"I64": torch.int64, "I32": torch.int32}[kinds[0]]
    raise InputError(
        f"'{name}' is stored as {', '.join(sorted(set(kinds)))}, which cannot be merged.",
        "Merge models in float32, bfloat16 or float16.",
    )


def _check_finite(name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise InputError(
            f"'{name}' holds numbers that are not finite, before or after merging.",
            "A model that diverged cannot be merged; float16 overflows at 65,504: try --dtype bfloat16.",
        )
