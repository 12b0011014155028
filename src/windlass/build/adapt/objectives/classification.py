"""Classification: which label a text has, or which labels; single texts or pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.columns import text_in
from windlass.build.adapt.data.labels import Labels, labels_of
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader, reads_types
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.measures import macro_f1, several_f1, wilson
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for rows whose texts or labels nothing can be learned
    from."""
    settings = opened.settings
    reader = TextReader.of(opened)
    rows, left_out = reader.fitting(opened.rows(), lambda row: [text_in(row)])
    labels = labels_of(rows, settings.objective.labels)
    texts, cut = reader.read([text_in(row) for row in rows], rows)
    keys = [text.ids.tobytes() for text in texts]
    strata = None if labels.several else labels.chosen
    train, heldout = split(keys, settings.data.heldout, settings.run.seed, strata)
    judging = begun(opened, labels.names, "any of" if labels.several else "one of")

    def examples(numbers: Sequence[int]) -> TextExamples:
        targets = labels.targets(numbers)
        found = [Example([texts[number]], target) for number, target in zip(numbers, targets, strict=True)]
        return TextExamples(found, typed=reads_types(opened))

    learned, unseen = examples(train), examples(heldout)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return judged(loss_of, unseen, labels, most, tick)

    lines = [
        *left_out,
        f"{len(train):,} texts to train on, {len(heldout):,} held out; {learned.tokens:,} tokens, none of them padding",
        *_about(labels, train, keys, cut),
        *judging.lines,
    ]
    facts: dict[str, object] = {
        "examples": len(train), "tokens": learned.tokens, "labels": list(labels.names), "cut": cut
    }  # fmt: skip
    loss = partial(by_class, judging.model, dtype=dtype_of(settings.run))
    longest = max(len(text.ids) for text in texts)
    return Prepared(judging.model, loss, learned, longest, measure, judging.save, lines, facts, stored_kind(settings))


def by_class(model: Classifier, batch: Batch, dtype: torch.dtype | None = None) -> Loss:
    """Cross-entropy of the right label; of labels that do not exclude each other the mean of each one's own.

    `metrics` holds the logits, (examples, labels).
    """
    assert isinstance(batch, TextBatch)
    logits_BL = scores(model, batch, dtype)
    targets = batch.targets_BT[0]
    if targets.is_floating_point():
        loss = F.binary_cross_entropy_with_logits(logits_BL, targets, reduction="none").mean(1).sum()
    else:
        loss = F.cross_entropy(logits_BL, targets, reduction="sum")
    return Loss(loss, batch.counted, {"logits": logits_BL.detach()})


def scores(model: Classifier, batch: TextBatch, dtype: torch.dtype | None) -> Tensor:
    """The logits of each text, in the order of the examples."""
    logits_BL = model(batch.inputs_BT, batch.lengths, types_BT=batch.types_BT, dtype=dtype)
    return logits_BL[batch.places_N]


def judged(loss_of: LossOf, unseen: TextExamples, labels: Labels, most: int | None, tick: Tick | None) -> Figures:
    """Loss, and `agreeing` on what is held out."""
    nats, logits, targets = 0.0, [], []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        nats += float(loss.sum)
        logits.append(loss.metrics["logits"].float().cpu().numpy())
        targets += [unseen[number].targets for number in numbers]
    logits_NL, right = np.concatenate(logits), np.concatenate(targets)
    return Figures(nats / len(right), *agreeing(logits_NL, right, labels.several))


def agreeing(logits_NL: NDArray[np.float32], right: NDArray[Any], several: bool) -> tuple[dict[str, float], str]:
    """How often logits hold what is right for the likeliest, the figure that counts first; and in words. `right`: the
    number of each text's label, (N), or 1 for each of several that it has, (N, L)."""
    count = len(right)
    if several:
        found_NL, right_NL = logits_NL > 0, right > 0.5
        micro, macro = several_f1(right_NL, found_NL)
        exact = int((found_NL == right_NL).all(1).sum())
        values = {"micro_f1": micro, "macro_f1": macro, "exact": exact / count}
        return values, f"micro F1 {micro:.3f}, macro F1 {macro:.3f}, all labels right {exact / count:.1%} of {count:,}"
    found = logits_NL.argmax(1)
    good, macro = int((found == right).sum()), macro_f1(right, found, logits_NL.shape[1])
    low, high = wilson(good, count)
    values = {"accuracy": good / count, "accuracy_low": low, "accuracy_high": high, "macro_f1": macro}
    return values, f"{good / count:.1%} right ({low:.1%} to {high:.1%}) of {count:,}, macro F1 {macro:.3f}"


def _about(labels: Labels, train: Sequence[int], keys: Sequence[bytes], cut: int) -> list[str]:
    """What a person should know of the labels before anything is trained."""
    counts = sorted(zip(labels.counts(), labels.names, strict=True), reverse=True)
    (most, name), (least, rare) = counts[0], counts[-1]
    rows = len(keys)
    lines = [
        f"{len(counts)} labels; the most frequent is '{name}' ({most / rows:.1%}: what always saying it would get "
        f"right), the rarest '{rare}' ({least:,} texts)"
    ]
    if missing := [name for count, name in counts if not count]:
        lines.append(f"never seen, so never learned: {', '.join(missing)}")
    same: dict[bytes, set[tuple[int, ...]]] = {}
    for key, chosen in zip(keys, labels.chosen, strict=True):
        same.setdefault(key, set()).add(chosen)
    if both := sum(len(chosen) > 1 for chosen in same.values()):
        lines.append(f"{both:,} texts are there several times with different labels")
    if repeated := rows - len(same):
        lines.append(f"{repeated:,} texts are repetitions; each stands with its likes, trained on or held out")
    if cut:
        lines.append(f"{cut:,} texts are longer than the model reads, and were cut")
    return lines
