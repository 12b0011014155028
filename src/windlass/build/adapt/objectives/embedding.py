"""Embeddings: vectors of texts that belong together come close, those of others part.

Rows of queries with a passage that answers each: InfoNCE (van den Oord et al., arXiv 1807.03748) with the other
passages of the step as wrong answers (Henderson et al., arXiv 1705.00652), and with hard ones where rows name some. A
passage that is right for the same query elsewhere in the step, or says the same, is no wrong answer.

Rows of pairs with a score: CoSENT, which asks that pairs of higher score have the higher cosine (Su 2022).

Matryoshka (Kusupati et al., arXiv 2205.13147): the same loss on the first few numbers of each vector too, so that
vectors may be cut short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from windlass.build.adapt.data.columns import several_in, text_in, words_in
from windlass.build.adapt.data.rows import Row
from windlass.build.adapt.data.splitting import split
from windlass.build.adapt.data.texts import Example, TextBatch, TextExamples, TextReader
from windlass.build.adapt.objectives.figures import Figures, looked
from windlass.build.adapt.objectives.judging import uncompiled
from windlass.build.adapt.objectives.measures import ndcg, pearson, reciprocal_rank, spearman
from windlass.build.adapt.objectives.preparing import LossOf, Prepared
from windlass.build.adapt.objectives.regression import numbers_of
from windlass.build.adapt.opening import Opened
from windlass.build.adapt.peft.attaching import adapter_of, attach_adapter, merge
from windlass.build.adapt.peft.beginning import attached
from windlass.build.adapt.peft.storing import save_adapter, stored_kind
from windlass.build.training.compiling import prepare_blocks
from windlass.build.training.data.batches import Batch
from windlass.build.training.fitting import Tick
from windlass.build.training.objectives import Loss
from windlass.build.training.settings import dtype_of
from windlass.build.transformer.classifier_files import body_links, family_of, load_body
from windlass.build.transformer.embedder_files import Embedder, Recipe, read_recipe, save_embedder, save_recipe
from windlass.core.errors import InputError

_QUERIES, _NEGATIVES = ("query", "anchor"), ("negatives", "negative")
_MOST_SCORES = 1 << 22
"""Cosines that are held at a time when held-out passages are searched."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How vectors are compared."""

    temperature: float
    dimensions: tuple[int, ...] = ()
    """Further lengths to which vectors may be cut."""

    def views(self, vectors_ND: Tensor) -> list[Tensor]:
        """The vectors, whole and cut, each of unit length."""
        return [vectors_ND, *(F.normalize(vectors_ND[:, :size], dim=-1) for size in self.dimensions)]


def prepare(opened: Opened) -> Prepared:
    """Raises `InputError` for a base that is no encoder, and for rows that say of no two texts how near they are."""
    settings = opened.settings
    _check(opened)
    rows, recipe, reader = opened.rows(), read_recipe(opened.base), TextReader.of(opened, whole=True)
    scored = next((name for name in _QUERIES if name in rows[0].values), None) is None
    grouped = _scored if scored else _searched
    rows, left_out = reader.fitting(rows, lambda row: [text for texts in grouped(row, recipe) for text in texts])
    found, cut = _examples(rows, grouped, reader, recipe)
    keys = [example.texts[0].ids.tobytes() for example in found]  # a query is on one side
    train, heldout = split(keys, settings.data.heldout, settings.run.seed)
    learned, unseen = (TextExamples([found[number] for number in numbers]) for numbers in (train, heldout))
    encoder, left = load_body(opened.base)
    model, links = Embedder(encoder, recipe.pooling).train(), body_links(opened.base, "encoder.")
    attached(model, opened, links)
    prepare_blocks(model, uncompiled(settings.run), settings.schedule)

    def measure(loss_of: LossOf, most: int | None, tick: Tick | None) -> Figures:
        return (agreement if scored else search)(loss_of, unseen, most, tick)

    def save(folder: Path) -> None:
        specials, family = opened.specials, family_of(opened.base)
        if stored_kind(settings) == "adapter":
            save_adapter(model, opened, folder, "FEATURE_EXTRACTION", links)
            save_recipe(folder, recipe, encoder.config.hidden, reader.limit)
            return
        save_embedder(
            _merged(model, opened), folder, family, recipe,
            limit=reader.limit, bos=specials.bos, eos=specials.eos, pad=specials.pad,
        )  # fmt: skip

    texts = sum(len(example.texts) for example in found)
    lines = [
        *left_out,
        f"{len(train):,} {'pairs' if scored else 'queries'} to train on, {len(heldout):,} held out, with {texts:,} "
        f"texts; {learned.tokens:,} tokens, none of them padding",
        *([f"{cut:,} texts are longer than the model reads, and were cut"] if cut else []),
        *([f"left out of the base: {', '.join(left)}"] if left else []),
    ]
    how = Contrast(settings.objective.temperature or 0.05, settings.objective.dimensions)
    loss = partial(cosent if scored else in_batch, model, how=how, dtype=dtype_of(settings.run))
    longest = max(len(text.ids) for example in found for text in example.texts)
    facts: dict[str, object] = {"examples": len(train), "tokens": learned.tokens, "cut": cut}
    return Prepared(model, loss, learned, longest, measure, save, lines, facts, stored_kind(settings))


def in_batch(model: Embedder, batch: Batch, how: Contrast, dtype: torch.dtype | None = None) -> Loss:
    """Nats for each query to tell its passage from all others of the batch; `metrics` holds all vectors."""
    assert isinstance(batch, TextBatch)
    vectors_ND = _vectors(model, batch, dtype)
    first_E = batch.groups_E.cumsum(0) - batch.groups_E
    is_query_N = torch.zeros(len(vectors_ND), dtype=torch.bool, device=vectors_ND.device)
    is_query_N[first_E] = True
    own_E = first_E - torch.arange(len(first_E), device=first_E.device)  # of its passage, once the queries are gone
    right_EP = _also_right(batch.alike_N[is_query_N], batch.alike_N[~is_query_N], own_E)
    loss = vectors_ND.new_zeros(())
    views = how.views(vectors_ND)
    for view_ND in views:
        scores_EP = view_ND[is_query_N] @ view_ND[~is_query_N].T / how.temperature
        loss = loss + F.cross_entropy(scores_EP.masked_fill(right_EP, float("-inf")), own_E, reduction="sum")
    return Loss(loss / len(views), batch.counted, {"vectors": vectors_ND.detach()})


def cosent(model: Embedder, batch: Batch, how: Contrast, dtype: torch.dtype | None = None) -> Loss:
    """How far pairs of lower score have the higher cosine: log of 1 and the sum of exp((lower - higher) / temperature)
    over all such pairs of pairs; `metrics` holds all vectors."""
    assert isinstance(batch, TextBatch)
    vectors_ND = _vectors(model, batch, dtype)
    right_E = batch.targets_BT[0]
    apart_EE = right_E[:, None] > right_E[None, :]
    loss = vectors_ND.new_zeros(())
    views = how.views(vectors_ND)
    for view_ND in views:
        cosine_E = (view_ND[0::2] * view_ND[1::2]).sum(-1) / how.temperature
        wrong = (cosine_E[None, :] - cosine_E[:, None])[apart_EE]
        loss = loss + torch.logsumexp(F.pad(wrong, (1, 0)), 0)
    return Loss(loss / len(views) * batch.counted, batch.counted, {"vectors": vectors_ND.detach()})


def search(loss_of: LossOf, unseen: TextExamples, most: int | None, tick: Tick | None) -> Figures:
    """Each held-out query in all held-out passages."""
    nats, count = 0.0, 0
    queries, answers = [], []
    passages: dict[bytes, int] = {}
    vectors: list[NDArray[np.float32]] = []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        nats, count = nats + float(loss.sum), count + loss.counted
        rows = iter(loss.metrics["vectors"].float().cpu().numpy())
        for number in numbers:
            query, *others = unseen[number].texts
            queries.append((query.ids.tobytes(), next(rows)))
            places = []
            for text in others:
                vector = next(rows)
                places.append(passages.setdefault(text.ids.tobytes(), len(passages)))
                if len(passages) > len(vectors):
                    vectors.append(vector)
            answers.append(places[0])
    right: dict[bytes, set[int]] = {}
    for (key, _), answer in zip(queries, answers, strict=True):
        right.setdefault(key, set()).add(answer)
    passages_PD = np.stack(vectors)
    found = []
    step = max(1, _MOST_SCORES // len(passages_PD))
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        scores_QP = np.stack([vector for _, vector in part]) @ passages_PD.T
        for (key, _), scores_P in zip(part, scores_QP.astype(np.float64), strict=True):
            gains_P = np.zeros(len(scores_P))
            gains_P[list(right[key])] = 1.0
            found.append((reciprocal_rank(gains_P, scores_P), ndcg(gains_P, scores_P)))
    ranks, gains = np.array(found).T
    values = {"mrr": float(ranks.mean()), "ndcg_10": float(gains.mean()), "first": float((ranks == 1).mean())}
    return Figures(
        nats / count, values,
        f"MRR {values['mrr']:.3f}, nDCG@10 {values['ndcg_10']:.3f}, right passage first {values['first']:.1%}, "
        f"{len(queries):,} queries among {len(passages):,} passages",
    )  # fmt: skip


def agreement(loss_of: LossOf, unseen: TextExamples, most: int | None, tick: Tick | None) -> Figures:
    """Cosines of held-out pairs against their scores."""
    total, count, cosines, right = 0.0, 0, [], []
    for numbers, loss in looked(loss_of, unseen, most, tick):
        total, count = total + float(loss.sum), count + loss.counted
        vectors_ND = loss.metrics["vectors"].double().cpu().numpy()
        cosines.append((vectors_ND[0::2] * vectors_ND[1::2]).sum(-1))
        right += [unseen[number].targets.astype(np.float64) for number in numbers]
    a, b = np.concatenate(cosines), np.concatenate(right)
    values = {"spearman": spearman(a, b), "pearson": pearson(a, b)}
    said = f"Spearman {values['spearman']:.3f}, Pearson {values['pearson']:.3f}, over {len(a):,} pairs"
    return Figures(total / count, values, said)


def _vectors(model: Embedder, batch: TextBatch, dtype: torch.dtype | None) -> Tensor:
    """Of each text, in the order of the examples."""
    return model(batch.inputs_BT, batch.lengths, dtype=dtype)[batch.places_N]


def _also_right(queries_E: Tensor, passages_P: Tensor, own_E: Tensor) -> Tensor:
    """Which passages are no wrong answers though they are not the query's own one, (E, P): those that say the same as
    a passage that is right for the same query."""
    same_EE = queries_E[:, None] == queries_E[None, :]
    says_EP = passages_P[own_E][:, None] == passages_P[None, :]
    right_EP = (same_EE.float() @ says_EP.float()) > 0
    return right_EP.scatter(1, own_E[:, None], False)


def _merged(model: Embedder, opened: Opened) -> Embedder:
    if all(parameter.requires_grad for parameter in model.parameters()):
        return model
    fresh = Embedder(load_body(opened.base)[0], model.pooling)
    attach_adapter(fresh, adapter_of(model))
    merge(fresh)
    return fresh


def _check(opened: Opened) -> None:
    data, sizes = opened.settings.data, opened.settings.objective.dimensions
    if data.micro_batch is not None:
        raise InputError(
            "data.micro_batch is set, but the wrong answers of this loss are the other passages of a pass.",
            "Leave it out, or make data.batch smaller.",
        )
    if any(not 1 <= size < opened.config.hidden for size in sizes):
        raise InputError(
            f"objective.dimensions is {list(sizes)}, but vectors of {opened.base_name} have {opened.config.hidden} "
            "numbers and are cut to fewer.",
        )


Grouped = Callable[[Row, Recipe], list[list[str]]]
"""The texts of each example that a row gives, as the model is to read them."""


def _searched(row: Row, recipe: Recipe) -> list[list[str]]:
    """A query, its passage, and hard negatives; a row with several passages is an example of each."""
    column = next((name for name in _QUERIES if name in row.values), None)
    if column is None or "positive" not in row.values:
        raise InputError(
            f"{row.where}: the columns are {', '.join(map(str, row.values)) or 'none'}.",
            "Give `query` and `positive`, and perhaps `negatives`; or two texts and a `score`.",
        )
    query, right = words_in(row, column), several_in(row, "positive")
    named = next((name for name in _NEGATIVES if name in row.values), None)
    wrong = several_in(row, named) if named else []
    if not right or set(right) & set(wrong):
        raise InputError(f"{row.where}: " + ("a positive is a negative too." if right else "positive is empty."))
    before, behind = recipe.prompt(True), recipe.prompt(False)
    return [[before + query, *(behind + text for text in (one, *wrong))] for one in right]


def _scored(row: Row, recipe: Recipe) -> list[list[str]]:
    pair = text_in(row)
    if isinstance(pair, str):
        raise InputError(
            f"{row.where}: there is one text, but an embedder learns from two.",
            "Give `query` and `positive`, and perhaps `negatives`; or `sentence1`, `sentence2` and `score`.",
        )
    return [[recipe.prompt(False) + text for text in pair]]


def _scores(rows: Sequence[Row]) -> list[float]:
    scores_NL = numbers_of(rows)
    if scores_NL.shape[1] != 1 or (scores_NL == scores_NL[0]).all():
        raise InputError("The scores are all the same, or several in a row, so they order nothing.")
    found: list[float] = scores_NL[:, 0].tolist()
    return found


def _examples(rows: Sequence[Row], grouped: Grouped, reader: TextReader, recipe: Recipe) -> tuple[list[Example], int]:
    groups = [(row, texts) for row in rows for texts in grouped(row, recipe)]
    tokens, cut = reader.read(
        [text for _, texts in groups for text in texts], [row for row, texts in groups for _ in texts]
    )
    read, values = iter(tokens), _scores(rows) if grouped is _scored else [1.0] * len(groups)
    return [
        Example([next(read) for _ in texts], np.array([value], np.float32))
        for (_, texts), value in zip(groups, values, strict=True)
    ], cut
