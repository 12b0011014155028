"""Metrics of texts: processor time beside the libraries that they are held to, and whether the scores are the same.

    python -m bench.metrics [--data FOLDER] [--lines N] [--rounds N]

Texts are lines of Multi30k (English) with words dropped, changed, put in and moved by a seeded hand; long ones are 40
lines each. Each round measures every contestant once, in turn; the figures are medians. The last column is how many
times the other's time ours takes less; rapidfuzz, which jiwer rests on, is C++.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
from bench._data import data_folder
from nltk.translate.meteor_score import meteor_score
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER

from windlass.core.tables import table
from windlass.evaluate.metrics.text.bleu import bleu, bleu_counts
from windlass.evaluate.metrics.text.chrf import chrf, chrf_counts
from windlass.evaluate.metrics.text.edits import distance, edit_counts, word_error_rate
from windlass.evaluate.metrics.text.meteor import meteor, words
from windlass.evaluate.metrics.text.rouge import rouge_l, rouge_lsum, rouge_n
from windlass.evaluate.metrics.text.ter import ter, ter_counts
from windlass.evaluate.statistics.bootstrap import bootstrap_sums

FILE = "translation/multi30k/train.en.gz"
LONG = 40
RESAMPLES = 1_000


class NoSynonyms:
    def synsets(self, word: str) -> list[Any]:
        return []


def changed(draw: random.Random, line: str, known: list[str]) -> str:
    said = [word for word in line.split() if draw.random() > 0.1]
    said = [draw.choice(known) if draw.random() < 0.15 else word for word in said]
    if len(said) > 6 and draw.random() < 0.5:
        start = draw.randrange(len(said) - 3)
        run, rest = said[start : start + 3], said[:start] + said[start + 3 :]
        to = draw.randrange(len(rest) + 1)
        said = rest[:to] + run + rest[to:]
    return " ".join(said)


def contests(found: list[str], right: list[str]) -> dict[str, tuple[str, Callable[[], float], Callable[[], float]]]:
    """By name: the other library, ours, theirs. Both give the same score, or the bench ends."""
    lists = [[one] for one in right]
    long_found = ["\n".join(found[i : i + LONG]) for i in range(0, len(found), LONG)][:20]
    long_right = ["\n".join(right[i : i + LONG]) for i in range(0, len(right), LONG)][:20]
    long_lists = [[one] for one in long_right]

    def rouge(kind: str, texts: list[str], wanted: list[str], stemmed: bool = False) -> Callable[[], float]:
        scorer = RougeScorer([kind], use_stemmer=stemmed)
        return lambda: statistics.fmean(scorer.score(b, a)[kind].fmeasure for a, b in zip(texts, wanted))

    def interval() -> float:
        counts = bleu_counts(found, lists)
        return bootstrap_sums(counts, bleu, seed=0, resamples=RESAMPLES).estimate

    return {
        "BLEU": (
            "sacrebleu",
            lambda: float(bleu(bleu_counts(found, lists).sum(axis=0))),
            lambda: BLEU().corpus_score(found, [right]).score,
        ),
        f"BLEU with {RESAMPLES} resamples": (
            "sacrebleu",
            interval,
            lambda: BLEU().corpus_score(found, [right], n_bootstrap=RESAMPLES).score,
        ),
        "chrF++": (
            "sacrebleu",
            lambda: float(chrf(chrf_counts(found, lists, words=2).sum(axis=0))),
            lambda: CHRF(word_order=2).corpus_score(found, [right]).score,
        ),
        "TER": (
            "sacrebleu",
            lambda: float(ter(ter_counts(found, lists).sum(axis=0))),
            lambda: TER().corpus_score(found, [right]).score,
        ),
        "ROUGE-2, stemmed": (
            "rouge-score",
            lambda: float(rouge_n(found, lists, 2, stemmed=True).f1.mean()),
            rouge("rouge2", found, right, stemmed=True),
        ),
        "ROUGE-L": (
            "rouge-score",
            lambda: float(rouge_l(found, lists).f1.mean()),
            rouge("rougeL", found, right),
        ),
        "ROUGE-L, long": (
            "rouge-score",
            lambda: float(rouge_l(long_found, long_lists).f1.mean()),
            rouge("rougeL", long_found, long_right),
        ),
        "ROUGE-Lsum, long": (
            "rouge-score",
            lambda: float(rouge_lsum(long_found, long_lists).f1.mean()),
            rouge("rougeLsum", long_found, long_right),
        ),
        "METEOR": (
            "nltk",
            lambda: float(meteor(found, lists).mean()),
            lambda: statistics.fmean(
                meteor_score([words(b)], words(a), wordnet=NoSynonyms()) for a, b in zip(found, right)
            ),
        ),
        "WER": (
            "jiwer (C++)",
            lambda: float(word_error_rate(edit_counts(found, lists).sum(axis=0))),
            lambda: jiwer.wer(right, found),
        ),
        "Levenshtein, long": (
            "rapidfuzz (C++)",
            lambda: float(sum(map(distance, long_found, long_right))),
            lambda: float(sum(map(Levenshtein.distance, long_found, long_right))),
        ),
        "Levenshtein, long ": (
            "the table, vectorised",
            lambda: float(sum(map(distance, long_found[:3], long_right[:3]))),
            lambda: float(sum(map(by_rows, long_found[:3], long_right[:3]))),
        ),
    }


def by_rows(one: str, other: str) -> int:
    """The textbook's table, a row at a time with numpy."""
    a = np.frombuffer(one.encode("utf-32-le"), dtype="<u4")
    steps = np.arange(a.size + 1)
    row = steps
    for number, symbol in enumerate(other, start=1):
        best = np.concatenate([[number], np.minimum(row[1:] + 1, row[:-1] + (a != ord(symbol)))])
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data_folder())
    parser.add_argument("--lines", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with gzip.open(args.data / FILE, "rt", encoding="utf-8") as file:
        right = [line.strip() for line, _ in zip(file, range(args.lines))]
    draw = random.Random(0)
    known = [word for line in right for word in line.split()]
    found = [changed(draw, line, known) for line in right]
    spent: dict[str, list[list[float]]] = {}
    pairs = contests(found, right)
    for turn in range(args.rounds + 1):  # the first is for what is loaded and cached once
        for name, (_, ours, theirs) in pairs.items():
            scores, seconds = [], []
            for run in (ours, theirs):
                began = time.process_time()
                scores.append(run())
                seconds.append(time.process_time() - began)
            if abs(scores[0] - scores[1]) > 1e-9 * max(1.0, abs(scores[1])):
                raise SystemExit(f"{name}: {scores[0]} is not {scores[1]}")
            if turn:
                spent.setdefault(name, []).append(seconds)
    rows, ratios = [], {}
    for name, (other, *_) in pairs.items():
        mine, peers = (statistics.median(column) for column in zip(*spent[name]))
        ratios[name.strip() + (" (table)" if name.endswith(" ") else "")] = round(peers / mine, 2)
        rows.append((name, other, f"{1e3 * mine:,.1f}", f"{1e3 * peers:,.1f}", f"{peers / mine:,.2f}"))
    print(f"{len(right):,} lines, processor time in ms, median of {args.rounds}; the scores are the same\n")
    print(table(("", "beside", "ours", "theirs", "theirs / ours"), rows))
    print(json.dumps({"bench": "metrics", "ratio": ratios["BLEU"], "against": "sacrebleu, BLEU", **ratios}))


if __name__ == "__main__":
    main()
