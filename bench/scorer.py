"""Scoring multiple choice behind a few shared examples: `Scorer` against transformers' full recompute.

A prefix of 512 tokens, 8 questions of 24 to 48, 4 choices of 2 to 6 each, on a random Llama of 134 million weights, in
float32 and in bfloat16. Transformers reads all 32 texts whole, eight of like length at a time, and makes logits of the
last tokens only, which is faster than lm-evaluation-harness lets it. Both take turns, `Scorer` anew each time; the
fastest round of each counts. A second call by the same `Scorer` shows what is left when the prefix is in its cache.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from windlass.build.transformer.decoder import Decoder
from windlass.build.transformer.hf import load_decoder
from windlass.serve.engine.arithmetic.linears import prepare
from windlass.serve.engine.scoring.scorer import Scorer

Pair = tuple[list[int], list[int]]
SHAPE = {
    "vocab_size": 32_000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 12, "intermediate_size": 2048, "max_position_embeddings": 2048, "bos_token_id": None,
    "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    seconds: float
    seconds_warm: float
    """The same pairs once more, by a scorer that has the last of them in its cache."""
    theirs: float
    difference: float
    """The largest of any log-likelihood."""
    flags_differ: int
    """How many of the answers to "is it the likeliest?" differ."""

    @property
    def ratio(self) -> float:
        return self.theirs / self.seconds


def task(vocabulary: int, *, prefix: int = 512, questions: int = 8, choices: int = 4) -> list[Pair]:
    """Random tokens of the usual lengths."""
    rng = random.Random(0)

    def some(least: int, most: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(rng.randint(least, most))]

    shots = some(prefix, prefix)
    contexts = [shots + some(24, 48) for _ in range(questions)]
    return [(context, some(2, 6)) for context in contexts for _ in range(choices)]


@torch.inference_mode()
def recompute(model: Any, pairs: Sequence[Pair], batch: int = 8) -> list[tuple[float, bool]]:
    """Every text whole, by transformers."""
    found: dict[int, tuple[float, bool]] = {}
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    for start in range(0, len(order), batch):
        rows = [[*pairs[i][0], *pairs[i][1]][:-1] for i in order[start : start + batch]]
        longest = max(map(len, rows))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])  # causal: nobody looks there
        keep = max(longest - len(pairs[i][0]) + 1 for i in order[start : start + batch])
        logits = model(padded, use_cache=False, logits_to_keep=keep).logits.float()
        for row, i in zip(logits, order[start : start + batch], strict=True):
            context, continuation = pairs[i]
            first = len(context) - 1 - (longest - keep)
            own = row[first : first + len(continuation)]
            chosen = own.log_softmax(-1)[range(len(continuation)), continuation]
            found[i] = (float(chosen.double().sum()), own.argmax(-1).tolist() == continuation)
    return [found[i] for i in range(len(pairs))]


def compare(ours: Decoder, theirs: Any, *, rounds: int = 1) -> Comparison:
    """One decoder by `Scorer` and, as a model of transformers, by full recompute, taking turns."""
    pairs = task(ours.config.vocab_size)
    best, best_warm, best_theirs = (float("inf") for _ in range(3))
    Scorer(ours).loglikelihood(pairs[:1])  # warm up
    recompute(theirs, pairs[:1])
    for _ in range(rounds):
        scorer, start = Scorer(ours), time.perf_counter()
        found = scorer.loglikelihood(pairs)
        best, start = min(best, time.perf_counter() - start), time.perf_counter()
        scorer.loglikelihood(pairs)
        best_warm, start = min(best_warm, time.perf_counter() - start), time.perf_counter()
        expected = recompute(theirs, pairs)
        best_theirs = min(best_theirs, time.perf_counter() - start)
    difference = max(abs(a - b) for (a, _), (b, _) in zip(found, expected, strict=True))
    flags = sum(a != b for (_, a), (_, b) in zip(found, expected, strict=True))
    return Comparison(best, best_warm, best_theirs, difference, flags)


def measure(*, rounds: int, threads: int) -> dict[str, Comparison]:
    """By the numbers' type; without bfloat16 where this machine does not compute with it."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE)).eval()
        theirs.save_pretrained(folder)
        exact, packed = load_decoder(Path(folder)), load_decoder(Path(folder))
    policy = prepare(packed, "bf16").policy
    found = {"float32": compare(exact, theirs, rounds=rounds)}
    if policy == "bf16":
        found["bfloat16"] = compare(packed, theirs.bfloat16(), rounds=rounds)
    return found


def table(found: Mapping[str, Comparison]) -> None:
    print(f"{'':10}{'windlass':>10}{'again':>8}{'transformers':>14}{'ratio':>8}{'max |diff|':>12}{'flags':>7}")
    for name, one in found.items():
        print(
            f"{name:10}{one.seconds:9.2f}s{one.seconds_warm:7.2f}s{one.theirs:13.2f}s{one.ratio:8.1f}"
            f"{one.difference:12.1e}{one.flags_differ:7}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    found = measure(rounds=args.rounds, threads=args.threads)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads\n")
    table(found)
    line = {
        "bench": "scorer",
        "ratio": round(min(one.ratio for one in found.values()), 2),
        "against": "transformers full recompute",
        "float32_ratio": round(found["float32"].ratio, 2),
        "bfloat16_ratio": round(found["bfloat16"].ratio, 2) if "bfloat16" in found else None,
        "again_ratio": round(found["float32"].theirs / found["float32"].seconds_warm, 2),
        "max_abs_diff": found["float32"].difference,
        "flags_differ": found["float32"].flags_differ,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
