"""Tagging: which tag each word of a text has, such as the kind of name that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader
from windlass.build.adapt.data.words import aligned, tagged_rows, words_of
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.measures import entities, macro_f1
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.training.data.batches import IGNORE, Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for rows whose words or tags do not fit."""
    settings = opened.settings
    reader = TextReader.of(opened)
    rows, left_out = reader.fitting(opened.rows(), lambda row: [words_of(row)])
    tagged, names = tagged_rows(rows, settings.objective.labels)
    read, cut = aligned(reader, tagged, rows)
    found = [Example([tokens], tags) for tokens, tags in read]
    train, heldout = split([one.words for one in tagged], settings.data.heldout, settings.run.seed)
    judging = begun(opened, names, "one of", "tokens")
    learned, unseen = (TextExamples([found[n] for n in numbers], by_token=True) for numbers in (train, heldout))

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return compared(loss_of, unseen, names, most, tick)

    words = sum(len(tagged[number].words) for number in train)
    counts = np.bincount([tag for one in tagged for tag in one.tags], minlength=len(names))
    lines = [
        *left_out,
        f"{len(train):,} texts of {words:,} words to train on, {len(heldout):,} held out; {learned.tokens:,} tokens, "
        "none of them padding",
        f"{len(names)} tags; the most frequent is '{names[counts.argmax()]}' ({counts.max() / counts.sum():.1%} of the "
        "words)",
        *([f"{cut:,} texts are longer than the model reads, and lost their last words"] if cut else []),
        *judging.lines,
    ]
    facts: dict[str, object] = {
        "examples": len(train), "tokens": learned.tokens, "words": words, "labels": list(names), "cut": cut
    }  # fmt: skip
    loss = partial(by_tag, judging.model, dtype=dtype_of(settings.run))
    longest = max(map(len, found))
    return Prepared(judging.model, loss, learned, longest, measure, judging.save, lines, facts, stored_kind(settings))


def by_tag(model: Classifier, batch: Batch, dtype: torch.dtype | None = None) -> Loss:
    """Cross-entropy of each word's tag; `metrics` holds the tag found for each token of the row."""
    assert isinstance(batch, TextBatch)
    logits_TL = model(batch.inputs_BT, batch.lengths, types_BT=batch.types_BT, dtype=dtype)
    loss = F.cross_entropy(logits_TL, batch.targets_BT[0], ignore_index=IGNORE, reduction="sum")
    return Loss(loss, batch.counted, {"found": logits_TL.detach().argmax(-1)})


def compared(
    loss_of: LossOf, unseen: TextExamples, names: Sequence[str], most: int | None, tick: Tick | None
) -> Figures:
    """Words with the right tag, and F1 of what BIO tags mark, or of the tags where they mark nothing."""
    nats, found, right = 0.0, [], []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        nats += float(loss.sum)
        tags = loss.metrics["found"].cpu().numpy()
        start = 0
        for number in numbers:  # short ones first: the order of the row
            targets = unseen[number].targets
            counted = targets != IGNORE
            right.append(targets[counted])
            found.append(tags[start : start + len(targets)][counted])
            start += len(targets)
    all_right, all_found = np.concatenate(right), np.concatenate(found)
    accuracy = float((all_right == all_found).mean())
    values, said = {"accuracy": accuracy}, f"{accuracy:.1%} of {len(all_right):,} words right"
    if any(name.startswith(("B-", "I-")) for name in names):
        both = made = there = 0
        for one, other in zip(right, found, strict=True):
            true, said_ = (entities([names[tag] for tag in tags]) for tags in (one, other))
            both, made, there = both + len(true & said_), made + len(said_), there + len(true)
        values["f1"] = 2 * both / (made + there) if made + there else 1.0
        values["precision"], values["recall"] = both / made if made else 0.0, both / there if there else 0.0
        said = f"F1 {values['f1']:.3f} of {there:,} marked stretches, {said}"
    else:
        values["macro_f1"] = macro_f1(all_right, all_found, len(names))
        said = f"{said}, macro F1 {values['macro_f1']:.3f}"
    return Figures(nats / len(all_right), values, said)
