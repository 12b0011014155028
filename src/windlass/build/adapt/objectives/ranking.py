"""Ranking by a cross-encoder, which reads query and document as one pair and says how well they belong together
(Nogueira & Cho, arXiv 1901.04085).

Rows of a query and one document with a label from 0 to 1: each pair is judged by itself. Rows of a query with documents
that are right and others that are not: they compete for the query, so that only their order matters (ListNet: Cao et
al., ICML 2007), or each is judged by itself too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from windlass.build.adapt.data.columns import Text, several_in, words_in
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader, reads_types
from windlass.build.adapt.objectives.classification import scores
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import begun
from windlass.build.adapt.objectives.measures import ndcg, reciprocal_rank
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.objectives.regression import numbers_of
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.storing import stored_kind
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier import Classifier
from windlass.core.errors import InputError

_SIGMOID = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
"""What makes a score of the logit, for the CrossEncoder of sentence-transformers."""


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for rows that put no document before another."""
    settings = opened.settings
    rows, reader = opened.rows(), TextReader.of(opened)
    lists = "positive" in rows[0].values
    rows, left_out = reader.fitting(rows, _several if lists else _single)
    queries, groups = _lists(rows) if lists else _pairs(rows)
    pairs = _paired(queries, groups)
    owners = [row for row, group in zip(rows, groups, strict=True) for _ in group]
    tokens, cut = reader.read(pairs, owners)
    read = iter(tokens)
    found = [
        Example([next(read) for _ in group], np.array([gain for _, gain in group], np.float32)) for group in groups
    ]
    train, heldout = split(queries, settings.data.heldout, settings.run.seed)
    judging = begun(opened, ("LABEL_0",), "number", more=_SIGMOID)
    typed, listwise = reads_types(opened), lists and settings.objective.listwise
    learned, unseen = (TextExamples([found[n] for n in numbers], typed=typed) for numbers in (train, heldout))
    asked = [queries[number] for number in heldout]

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return ordered(loss_of, unseen, asked, most, tick)

    lines = [
        *left_out,
        f"{len(set(queries)):,} queries, {len(set(asked)):,} of them held out, with {len(pairs):,} documents; "
        f"{learned.tokens:,} tokens to train on, none of them padding",
        "the documents of a query compete" if listwise else "each document is judged by itself",
        *([f"{cut:,} pairs are longer than the model reads, and were cut"] if cut else []),
        *judging.lines,
    ]
    facts: dict[str, object] = {"examples": len(train), "tokens": learned.tokens, "cut": cut}
    loss = partial(ranked, judging.model, listwise=listwise, dtype=dtype_of(settings.run))
    longest = max(len(text.ids) for text in tokens)
    return Prepared(judging.model, loss, learned, longest, measure, judging.save, lines, facts, stored_kind(settings))


def ranked(model: Classifier, batch: Batch, listwise: bool, dtype: torch.dtype | None = None) -> Loss:
    """For each example, either the cross-entropy of a softmax over its documents with the right ones in equal parts, or
    the mean binary cross-entropy of its documents; `metrics` holds the logit of each document."""
    assert isinstance(batch, TextBatch)
    logits_N = scores(model, batch, dtype)[:, 0]
    sizes: list[int] = batch.groups_E.tolist()
    loss = logits_N.new_zeros(())
    for logits, gains in zip(torch.split(logits_N, sizes), torch.split(batch.targets_BT[0], sizes), strict=True):
        if listwise:
            loss = loss - (gains / gains.sum() * logits.log_softmax(0)).sum()
        else:
            loss = loss + F.binary_cross_entropy_with_logits(logits, gains)
    return Loss(loss, batch.counted, {"logits": logits_N.detach()})


def ordered(
    loss_of: LossOf, unseen: TextExamples, queries: Sequence[str], most: int | None, tick: Tick | None
) -> Figures:
    """How far up the right documents stand among those of the same query, in all of its rows."""
    nats, count = 0.0, 0
    by_query: dict[str, list[tuple[float, float]]] = {}
    for numbers, loss in looked(loss_of, unseen, most, tick):
        nats, count = nats + float(loss.sum), count + loss.counted
        logits = iter(loss.metrics["logits"].tolist())
        for number in numbers:
            for gain in unseen[number].targets.tolist():
                by_query.setdefault(queries[number], []).append((gain, next(logits)))
    lists = [np.array(found).T for found in by_query.values()]
    judged = [(gains, logits) for gains, logits in lists if gains.min() < gains.max()]
    every = np.concatenate(lists, axis=1)
    right = float(((every[1] > 0) == (every[0] > 0.5)).mean())
    values = {"accuracy": right}
    said = f"{right:.1%} of {every.shape[1]:,} documents on the right side of one half"
    if judged:
        values["mrr"] = float(np.mean([reciprocal_rank(gains, logits) for gains, logits in judged]))
        values["ndcg_10"] = float(np.mean([ndcg(gains, logits) for gains, logits in judged]))
        said = f"MRR {values['mrr']:.3f}, nDCG@10 {values['ndcg_10']:.3f} over {len(judged):,} queries, {said}"
    return Figures(nats / count, values, said)


def _paired(queries: Sequence[str], groups: Sequence[Sequence[tuple[str, float]]]) -> list[Text]:
    """Each query with each of its documents."""
    return [(query, text) for query, group in zip(queries, groups, strict=True) for text, _ in group]


def _several(row: Row) -> list[Text]:
    return _paired(*_lists([row]))


def _single(row: Row) -> list[Text]:
    return [(words_in(row, "query"), words_in(row, "document"))]


def _lists(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, float]]]]:
    """Queries, and the documents of each with their gains."""
    queries, groups = [], []
    for row in rows:
        named = next((name for name in ("negatives", "negative") if name in row.values), None)
        if "query" not in row.values or "positive" not in row.values or named is None:
            raise InputError(
                f"{row.where}: the columns are {', '.join(map(str, row.values)) or 'none'}.",
                "Give `query`, `positive` and `negatives`, or `query`, `document` and `label`.",
            )
        right, wrong = several_in(row, "positive"), several_in(row, named)
        if not right or not wrong or set(right) & set(wrong):
            raise InputError(
                f"{row.where}: a document is positive and negative at once."
                if set(right) & set(wrong)
                else f"{row.where}: {'positive' if not right else named} is empty, so nothing is put before another.",
            )
        queries.append(words_in(row, "query"))
        groups.append([*((text, 1.0) for text in right), *((text, 0.0) for text in wrong)])
    return queries, groups


def _pairs(rows: Sequence[Row]) -> tuple[list[str], list[list[tuple[str, float]]]]:
    labels_NL = numbers_of(rows)
    for row, values in zip(rows, labels_NL, strict=True):
        if len(values) != 1 or not 0 <= values[0] <= 1:
            raise InputError(
                f"{row.where}: the label is {values[0]:g}, but must be between 0 and 1.",
                "Divide grades by the highest one.",
            )
    if (labels_NL == labels_NL[0]).all():
        raise InputError(f"All rows have the label {labels_NL[0, 0]:g}, so no document is put before another.")
    groups = [[(words_in(row, "document"), float(label))] for row, label in zip(rows, labels_NL[:, 0], strict=True)]
    return [words_in(row, "query") for row in rows], groups
