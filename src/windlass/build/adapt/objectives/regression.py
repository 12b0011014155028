"""Regression: a number that is told from a text or a pair of texts, or several numbers.

The model learns numbers of mean 0 and deviation 1, whatever units the data has, so that one learning rate suits all;
what is stored gives them in the data's own units. The loss is the share of the variance that is not explained: 1 for a
model that always says the mean.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.columns import text_in
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader, reads_types
from windlass.build.adapt.objectives.classification import scores
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.measures import pearson, spearman
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier
from windlass.core.errors import InputError


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for rows without a text or a finite number."""
    settings = opened.settings
    reader = TextReader.of(opened)
    rows, left_out = reader.fitting(opened.rows(), lambda row: [text_in(row)])
    numbers_NL = numbers_of(rows)
    names = settings.objective.labels or tuple(f"LABEL_{place}" for place in range(numbers_NL.shape[1]))
    if len(names) != numbers_NL.shape[1]:
        raise InputError(f"objective.labels has {len(names)} names, but rows hold {numbers_NL.shape[1]} numbers.")
    texts, cut = reader.read([text_in(row) for row in rows], rows)
    train, heldout = split([text.ids.tobytes() for text in texts], settings.data.heldout, settings.run.seed)
    mean_L, deviation_L = numbers_NL[train].mean(0), numbers_NL[train].std(0)
    if not (deviation_L > 0).all():
        raise InputError("All rows have the same number, so there is nothing to learn.", "Look at the column `label`.")
    judging = begun(opened, names, "number")
    model = judging.model
    scale_L, shift_L = torch.tensor(deviation_L).float(), torch.tensor(mean_L).float()
    if judging.kept:
        _rescale(model, 1 / scale_L, -shift_L / scale_L)

    def examples(chosen: Sequence[int]) -> TextExamples:
        targets_NL = ((numbers_NL[chosen] - mean_L) / deviation_L).astype(np.float32)
        found = [Example([texts[n]], target[None]) for n, target in zip(chosen, targets_NL, strict=True)]
        return TextExamples(found, typed=reads_types(opened))

    learned, unseen = examples(train), examples(heldout)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return measured(loss_of, unseen, deviation_L, most, tick)

    def save(folder: Path) -> None:
        with _in_units(model, scale_L, shift_L):
            judging.save(folder)

    lines = [
        *left_out,
        f"{len(train):,} texts to train on, {len(heldout):,} held out; {learned.tokens:,} tokens, none of them padding",
        f"the mean is {', '.join(f'{value:.4g}' for value in mean_L)}, the standard deviation "
        f"{', '.join(f'{value:.4g}' for value in deviation_L)}: what always saying the mean would miss by",
        *([f"{cut:,} texts are longer than the model reads, and were cut"] if cut else []),
        *judging.lines,
    ]
    facts: dict[str, object] = {"examples": len(train), "tokens": learned.tokens, "labels": list(names), "cut": cut}
    loss = partial(squares, model, dtype=dtype_of(settings.run))
    longest = max(len(text.ids) for text in texts)
    return Prepared(model, loss, learned, longest, measure, save, lines, facts, stored_kind(settings))


def squares(model: Classifier, batch: Batch, dtype: torch.dtype | None = None) -> Loss:
    """Mean square of what each text's numbers are missed by; `metrics` holds the numbers said, (examples, labels)."""
    assert isinstance(batch, TextBatch)
    said_BL = scores(model, batch, dtype)
    loss = (said_BL - batch.targets_BT[0]).square().mean(1).sum()
    return Loss(loss, batch.counted, {"said": said_BL.detach()})


def measured(
    loss_of: LossOf, unseen: TextExamples, deviation_L: NDArray[np.float64], most: int | None, tick: Tick | None
) -> Figures:
    """Correlations, averaged over the labels, and the error in the data's own units."""
    total, said, right = 0.0, [], []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        total += float(loss.sum)
        said.append(loss.metrics["said"].double().cpu().numpy())
        right += [unseen[number].targets.astype(np.float64) for number in numbers]
    said_NL, right_NL = np.concatenate(said), np.concatenate(right)
    pairs = list(zip(said_NL.T, right_NL.T, strict=True))
    line, ranks = (float(np.mean([of(a, b) for a, b in pairs])) for of in (pearson, spearman))
    error = float((np.abs(said_NL - right_NL) * deviation_L).mean())
    values = {"pearson": line, "spearman": ranks, "mean_absolute_error": error}
    return Figures(
        total / len(right_NL), values,
        f"Pearson {line:.3f}, Spearman {ranks:.3f}, missed by {error:.4g} on average, over {len(right_NL):,} texts",
    )  # fmt: skip


def numbers_of(rows: Sequence[Row]) -> NDArray[np.float64]:
    """The numbers in the column `label` or `score`, (rows, labels): one in each row, or a list of as many in each.

    Raises `InputError` naming the row where there is none, another count, or one that is not finite.
    """
    found = [_numbers(row) for row in rows]
    for row, values in zip(rows, found, strict=True):
        if len(values) != len(found[0]):
            raise InputError(f"{row.where}: there are {len(values)} numbers, but {len(found[0])} in the first row.")
    return np.array(found, np.float64)


def _numbers(row: Row) -> list[float]:
    column = next((name for name in ("label", "score", "labels") if name in row.values), None)
    if column is None:
        raise InputError(
            f"{row.where}: there is no number; the columns are {', '.join(map(str, row.values)) or 'none'}.",
            "Give a column `label` or `score`, or say which one is meant, as in data.columns.label=grade.",
        )
    value = row.values[column]
    values = value if isinstance(value, list) and value else [value]
    try:
        numbers = [math.nan if isinstance(one, bool) else float(one) for one in values]
    except (TypeError, ValueError):
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{row.where}: {column} is {json.dumps(value, default=str)[:80]}, but must be a finite number."
        )
    return numbers


@torch.no_grad()
def _rescale(model: Classifier, scale_L: Tensor, shift_L: Tensor) -> None:
    """Makes the model say `scale` times what it said, plus `shift`."""
    output = model.output
    assert output.bias is not None
    output.weight.mul_(scale_L.to(output.weight)[:, None])
    output.bias.mul_(scale_L.to(output.bias)).add_(shift_L.to(output.bias))


@contextlib.contextmanager
def _in_units(model: Classifier, scale_L: Tensor, shift_L: Tensor) -> Iterator[None]:
    """Within the block the model says numbers in the data's own units."""
    kept = [parameter.detach().clone() for parameter in model.output.parameters()]
    _rescale(model, scale_L, shift_L)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in zip(model.output.parameters(), kept, strict=True):
                parameter.copy_(before)
