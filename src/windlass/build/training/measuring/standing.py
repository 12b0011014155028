"""By which figure of a measurement one model is better than another, and whether more of it is better or less."""

from __future__ import annotations

import math
from collections.abc import Mapping

from windlass.core.errors import InputError

PREFIX = "heldout_"
_MORE = (
    "accuracy", "macro_f1", "micro_f1", "f1", "exact", "precision", "recall", "no_answer_accuracy", "mrr", "ndcg_10",
    "first", "pearson", "spearman", "agreement", "margin", "reward",
)  # fmt: skip
_LESS = ("loss", "bpb", "nats", "kl", "divergence", "mean_absolute_error")


def standing(metrics: Mapping[str, float], by: str) -> float:
    """The figure `by`, as `metrics` has it with or without its prefix, turned so that smaller is better.

    Raises `InputError` naming those that there are, for one that is not measured or that no model is better by.
    """
    name = by.removeprefix(PREFIX)
    known = sorted(one for one in (key.removeprefix(PREFIX) for key in metrics) if _sign(one))
    if name not in known:
        raise InputError(
            f"run.best_by is '{by}', by which no model is better here, or which is not measured.",
            f"Choose one of: {', '.join(known)}.",
        )
    value = metrics[PREFIX + name]
    return math.inf if math.isnan(value) else -_sign(name) * value


def _sign(name: str) -> int:
    if name in _LESS:
        return -1
    return int(name in _MORE or name.startswith("reward_"))
