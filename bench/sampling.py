"""Choosing tokens: our `choose` against transformers' warpers and `torch.multinomial`.

Random logits as steep as a language model's, at several batches and vocabularies. The contenders take turns, the
fastest of several rounds counts. The limit is one pass over the logits, their largest entry.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from windlass.serve.engine.sampling.sampler import Sampler, choose
from windlass.serve.engine.sampling.settings import Sampling

KINDS = {
    "greedy": {"temperature": 0.0},
    "temperature": {"temperature": 0.8},
    "top-k 50": {"temperature": 0.8, "top_k": 50},
    "top-p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "all three": {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.05},
    "hot top-p": {"temperature": 1.2, "top_p": 0.95},
    "penalties": {"temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1, "presence_penalty": 0.5},
}


def theirs(logits_BV: Tensor, history_BT: Tensor, settings: Sampling) -> Tensor:
    from transformers import generation as hf

    if settings.repetition_penalty != 1:
        logits_BV = hf.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)(history_BT, logits_BV)
    if settings.temperature == 0:
        return logits_BV.argmax(-1)
    logits_BV = hf.TemperatureLogitsWarper(settings.temperature)(history_BT, logits_BV)
    if settings.top_k:
        logits_BV = hf.TopKLogitsWarper(settings.top_k)(history_BT, logits_BV)
    if settings.top_p < 1:
        logits_BV = hf.TopPLogitsWarper(settings.top_p)(history_BT, logits_BV)
    if settings.min_p:
        logits_BV = hf.MinPLogitsWarper(settings.min_p)(history_BT, logits_BV)
    return torch.multinomial(logits_BV.softmax(-1), 1)[:, 0]


def fastest(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each."""
    times = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, work in contenders.items():
            start = time.perf_counter()
            work()
            times[name] = min(times[name], (time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 32_000), (16, 32_000), (1, 150_000), (16, 150_000)]
    print(f"{'milliseconds':<14}{'rows':>6}{'vocabulary':>12}{'windlass':>10}{'transformers':>14}{'one pass':>10}")
    ratios: dict[str, float] = {}
    for rows, vocabulary in shapes:
        # By Zipf's law, as language models' are: a nucleus of 0.95 is about a hundred tokens at 0.8, thousands at 1.2.
        ranks = torch.stack([torch.randperm(vocabulary, generator=generator) + 1 for _ in range(rows)])
        logits = -1.3 * ranks.log() + 0.3 * torch.randn(rows, vocabulary, generator=generator)
        history = torch.randint(vocabulary, (rows, 500), generator=generator)
        for name, kind in KINDS.items():
            settings = Sampling(**kind, seed=0)  # type: ignore[arg-type]
            samplers = [Sampler(settings, row) for row in history.tolist()]
            times = fastest(
                {
                    "ours": lambda logits=logits, samplers=samplers: choose(logits, samplers),
                    "theirs": lambda logits=logits, history=history, s=settings: theirs(logits, history, s),
                    "limit": lambda logits=logits: logits.amax(-1),
                },
                arguments.rounds,
            )
            ratios[f"{name}, {rows} x {vocabulary}"] = times["theirs"] / times["ours"]
            print(
                f"{name:<14}{rows:>6}{vocabulary:>12}{times['ours']:>10.2f}{times['theirs']:>14.2f}{times['limit']:>10.2f}",
                flush=True,
            )
    worst = min(ratios, key=ratios.__getitem__)
    typical = ratios["top-p 0.95, 16 x 150000"]
    print(f"least ahead of transformers: {worst}, {ratios[worst]:.2f} x", file=sys.stderr)
    print(
        json.dumps(
            {"bench": "sampling", "ratio": round(typical, 2), "against": "transformers",
             "of": "top-p 0.95, 16 x 150000", "worst": round(ratios[worst], 2), "worst_of": worst}
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
