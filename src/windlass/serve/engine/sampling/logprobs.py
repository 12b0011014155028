"""Log-probabilities as they are reported: of the model's own distribution, before penalties, temperature and masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windlass.serve.engine.sampling.token import Token


def reported(logits_BV: Tensor, ids: Sequence[int], tops: Sequence[int | None]) -> list[Token]:
    """Each row's token `ids[row]` with its log-probability and `tops[row]` alternatives (None: without both).

    Serves the tokens of an answer, forced ones, and those of a prompt (row t holds the logits before token t).
    Only the rows that ask are computed, in float32.
    """
    tokens = [Token(token) for token in ids]
    if not (rows := [row for row, top in enumerate(tops) if top is not None]):
        return tokens
    logits_RV = (logits_BV if len(rows) == len(ids) else logits_BV[rows]).float()
    total_R1 = logits_RV.logsumexp(-1, keepdim=True)
    id_R1 = torch.tensor([[ids[row]] for row in rows], device=logits_RV.device)
    own = (logits_RV.gather(-1, id_R1) - total_R1).flatten().tolist()
    most = max(top for top in tops if top is not None)
    best_RK, best_id_RK = logits_RV.topk(min(most, logits_RV.shape[-1]), dim=-1)
    best, best_id = (best_RK - total_R1).tolist(), best_id_RK.tolist()
    for place, row in enumerate(rows):
        tokens[row] = Token(ids[row], own[place], tuple(zip(best_id[place], best[place]))[: tops[row]])
    return tokens
