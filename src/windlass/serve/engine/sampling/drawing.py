"""Drawing one token from each row of logits, from the likelier part of its distribution.

Top-k, top-p and min-p all keep the tokens above some cutoff, so each row needs one number, the highest of the three.
It is looked for among the few likeliest tokens first, since sorting a vocabulary of 150,000 takes fifty times as long
(docs/lab.md). Tokens that tie with the last one kept are kept too, and a draw goes through the kept ones in the order
of the vocabulary, so that nothing hangs on the order of a sort or on how many were looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from windlass.serve.engine.sampling.settings import Sampling

COLDEST = 1e-5
"""Lower temperatures are as good as 0, and would overflow."""

WIDTHS = (64, 1024, 16384)
"""How many of the likeliest tokens are looked at before all are sorted."""


class Guess(NamedTuple):
    """A token that may come next."""

    token: int
    odds_V: Tensor | None = None
    """The distribution it was drawn from; None: it was not drawn."""


class _Part(NamedTuple):
    """Rows of a batch that are decided alike: weights (R, M), 0 where cut off, and which tokens they belong to."""

    rows: list[int]
    weights_RM: Tensor
    id_RM: Tensor | None
    """Ascending in each row; None: the whole vocabulary."""


def draw(logits_RV: Tensor, settings: Sequence[Sampling], uniforms: Sequence[float]) -> Tensor:
    """One token for each row, int64 (R,), where its uniform number falls in the cumulative distribution."""
    uniform_R = torch.tensor(uniforms, dtype=torch.float64, device=logits_RV.device)
    token_R = torch.empty(len(settings), dtype=torch.int64, device=logits_RV.device)
    for part in _parts(logits_RV, settings):
        place_R1 = look_up(part.weights_RM, uniform_R[part.rows])
        token_R[part.rows] = (place_R1 if part.id_RM is None else part.id_RM.gather(1, place_R1))[:, 0]
    return token_R


def distribution(logits_RV: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """The probabilities that `draw` draws from, float32 (R, V). Temperature 0 has all of it on the likeliest token."""
    p_RV = torch.zeros(logits_RV.shape, device=logits_RV.device)
    for part in _parts(logits_RV, settings):
        share_RM = part.weights_RM / part.weights_RM.sum(-1, keepdim=True)
        rows = torch.tensor(part.rows, device=logits_RV.device)[:, None]
        if part.id_RM is None:
            p_RV[rows[:, 0]] = share_RM
        else:
            p_RV[rows, part.id_RM] = share_RM
    for row, s in enumerate(settings):
        if s.temperature == 0:
            p_RV[row] = torch.nn.functional.one_hot(logits_RV[row].argmax(), p_RV.shape[1])
    return p_RV


def verified(p_V: Tensor, q_V: Tensor, guess: int, accept: float, uniform: float) -> int:
    """A token distributed as `p_V`, which is `guess`, drawn from `q_V`, as often as can be: modified rejection
    sampling (Leviathan et al., arXiv 2211.17192, theorem 3.5). `accept` and `uniform` are independent and in [0, 1)."""
    if accept * float(q_V[guess]) < float(p_V[guess]):
        return guess
    more_V = (p_V - q_V).clamp(min=0)
    if not more_V.any():  # they differ by rounding only
        more_V = p_V
    return int(look_up(more_V[None], torch.tensor([uniform], dtype=torch.float64, device=p_V.device)))


def look_up(weights_RM: Tensor, uniform_R: Tensor) -> Tensor:
    """Where each uniform number falls in the cumulative weights of its row, int64 (R, 1)."""
    cumulative_RM = weights_RM.cumsum(-1, dtype=torch.float64)  # in float32 the tail of a large vocabulary is lost
    total_R1 = cumulative_RM[:, -1:].contiguous()
    place_R1 = torch.searchsorted(cumulative_RM, total_R1 * uniform_R[:, None], right=True)
    last_R1 = torch.searchsorted(cumulative_RM, total_R1)  # rounding must not lead behind the last one that was kept
    return torch.minimum(place_R1, last_R1)


def _parts(logits_RV: Tensor, settings: Sequence[Sampling]) -> Iterator[_Part]:
    """Every row once, cut down to what top-k, top-p, min-p and typical keep."""
    vocabulary = logits_RV.shape[1]
    if whole := [row for row, s in enumerate(settings) if not s.truncates]:
        yield _Part(whole, _weights(_rows(logits_RV, whole), [settings[row] for row in whole]), None)
    left = [row for row, s in enumerate(settings) if s.truncates]
    for width in (width for width in WIDTHS if width < vocabulary):
        if not left:
            return
        mine = [settings[row] for row in left]
        logits_LV = _rows(logits_RV, left)
        best_LM, id_LM = logits_LV.topk(width)
        best_LM = _weights(best_LM, mine)
        cutoff_L1 = _cutoff(best_LM, _total(logits_LV, mine), mine)
        # The cutoff is the true one if it lies above something seen; then nothing unseen reaches it.
        found = (best_LM[:, -1:] < cutoff_L1)[:, 0].tolist()
        if done := [place for place, known in enumerate(found) if known]:
            id_DM, order_DM = id_LM[done].sort(-1)
            best_DM = best_LM[done].gather(-1, order_DM)
            kept_DM = _kept(best_DM, cutoff_L1[done], [mine[place] for place in done])
            yield _Part([left[place] for place in done], kept_DM, id_DM)
        left = [row for row, known in zip(left, found, strict=True) if not known]
    if left:
        mine = [settings[row] for row in left]
        weights_LV = _weights(_rows(logits_RV, left), mine)
        sorted_LV = weights_LV.sort(descending=True).values
        cutoff_L1 = _cutoff(sorted_LV, sorted_LV.sum(-1, keepdim=True, dtype=torch.float64), mine)
        yield _Part(left, _kept(weights_LV, cutoff_L1, mine), None)


def _weights(logits_RM: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """Probabilities at each row's temperature, up to a factor: the likeliest token, which is among them, weighs 1."""
    heat_R1 = _column([max(s.temperature, COLDEST) for s in settings], logits_RM)
    below_RM = logits_RM.float() - logits_RM.amax(-1, keepdim=True)
    return below_RM.div_(heat_R1).exp_()


def _total(logits_RV: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """The weight of the whole vocabulary, float64 (R, 1), where a top-p without a top-k needs it."""
    total_R1 = torch.ones(len(settings), 1, dtype=torch.float64, device=logits_RV.device)
    if rows := [row for row, s in enumerate(settings) if s.top_p < 1 and not s.top_k]:
        weights_NV = _weights(_rows(logits_RV, rows), [settings[row] for row in rows])
        total_R1[rows] = weights_NV.sum(-1, keepdim=True, dtype=torch.float64)
    return total_R1


def _kept(weights_RM: Tensor, cutoff_R1: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """The weights, 0 below the cutoff and where not typical."""
    kept_RM = weights_RM.masked_fill(weights_RM < cutoff_R1, 0)
    for row_M, s in zip(kept_RM, settings, strict=True):
        if s.typical_p < 1:
            row_M.masked_fill_(~_typical(row_M, s.typical_p), 0)
    return kept_RM


def _cutoff(best_RM: Tensor, total_R1: Tensor, settings: Sequence[Sampling]) -> Tensor:
    """The lowest weight that top-k, top-p and min-p keep of each row, (R, 1), as far as its likeliest weights tell
    (descending). top-p counts what top-k left, as everywhere in the field; where both ask for more than is seen, the
    answer is the last weight seen."""
    seen = best_RM.shape[1]
    cutoff_R1 = _column([s.min_p for s in settings], best_RM)
    if any(s.top_k for s in settings):
        k_R1 = torch.tensor([[min(s.top_k, seen) or seen] for s in settings], device=best_RM.device)
        limited_R1 = torch.tensor([[s.top_k > 0] for s in settings], device=best_RM.device)
        least_R1 = best_RM.gather(-1, k_R1 - 1).masked_fill(~limited_R1, 0)
        best_RM = best_RM.masked_fill(best_RM < least_R1, 0)
        total_R1 = torch.where(limited_R1, best_RM.sum(-1, keepdim=True, dtype=torch.float64), total_R1)
        cutoff_R1 = torch.maximum(cutoff_R1, least_R1)
    if any(s.top_p < 1 for s in settings):
        wanted_R1 = total_R1 * torch.tensor([[s.top_p] for s in settings], dtype=torch.float64, device=best_RM.device)
        short_R1 = (best_RM.cumsum(-1, dtype=torch.float64) < wanted_R1).sum(-1, keepdim=True)
        limited_R1 = torch.tensor([[s.top_p < 1] for s in settings], device=best_RM.device)
        least_R1 = best_RM.gather(-1, short_R1.clamp(max=seen - 1)).masked_fill(~limited_R1, 0)
        cutoff_R1 = torch.maximum(cutoff_R1, least_R1)
    return cutoff_R1


def _typical(weights_M: Tensor, mass: float) -> Tensor:
    """Which tokens are typical: those whose surprise is nearest to the distribution's entropy, of at least `mass`."""
    p_M = weights_M.double() / weights_M.sum(dtype=torch.float64)
    distance_M: Tensor = (-p_M.log() - torch.special.entr(p_M).sum()).abs()
    nearest_M, order_M = distance_M.sort(stable=True)
    last = int((p_M[order_M].cumsum(0) < mass).sum())
    return distance_M <= nearest_M[min(last, len(p_M) - 1)]


def _rows(logits_RV: Tensor, rows: Sequence[int]) -> Tensor:
    return logits_RV if len(rows) == len(logits_RV) else logits_RV[rows]


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device)[:, None]
