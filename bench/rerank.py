"""Trains the reranker of these benchmarks from public questions, and says what it brings on collections it never saw.

    python -m bench.rerank --minutes 8 --keep ranker        then: python -m bench.retrieval --reranker ranker

Learned from: questions of AdversarialQA, Quoref, SciQ and QED with the paragraphs that answer them, and what technical
documents ask themselves (headings, sentences). Wrong passages are those that the default search finds. The weight of
the reranker against the search is chosen on questions of its own articles that it did not learn from. Measured: nDCG@10
on Cranfield and CACM, of which nothing was learned, against the default search; intervals are paired, 95 %.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench._answering_data import _prompted, _qed
from bench.retrieval import Collection, cacm, cranfield, data_folder, opened, technical
from numpy.typing import NDArray

from windlass.apply.rag.index import HybridIndex
from windlass.apply.rag.retrieving.mmr import scaled
from windlass.apply.rag.retrieving.ranking_rows import Answered, Row, rows, self_asked
from windlass.apply.rag.retrieving.step import about
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.documents import Document
from windlass.core.protocols import Embedder, Hit, Reranker
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.retrieval import judge, ndcg
from windlass.evaluate.statistics.paired import paired_difference
from windlass.loop.assistants.assemble import load_reranker

SEED = 0
WEIGHTS = tuple(round(0.1 * n, 1) for n in range(11))


@dataclass(frozen=True)
class Judged:
    """The candidates of a collection's questions with what both judges say of them."""

    hits: Sequence[Sequence[Hit]]
    scores: Sequence[NDArray[np.float64]]
    """The reranker's, for the first candidates of each question."""
    relevances: Sequence[Mapping[str, float]]

    def ndcg(self, weight: float) -> NDArray[np.float64]:
        rankings = [_documents(hits, own, weight) for hits, own in zip(self.hits, self.scores, strict=True)]
        return ndcg(judge(rankings, self.relevances), 10)


def judged(index: HybridIndex, collection: Collection, reranker: Reranker, depth: int) -> Judged:
    found = index.search_many(collection.questions, 80)
    scores = [
        np.asarray(reranker.rank(question, [about(hit) for hit in hits[:depth]]).scores, np.float64)
        for question, hits in zip(collection.questions, found, strict=True)
    ]
    return Judged(found, scores, collection.relevances)


def _documents(hits: Sequence[Hit], own: NDArray[np.float64], weight: float) -> list[str]:
    """Each document where its best passage stands: as `Reranked` orders them."""
    mixed = weight * scaled(own.tolist()) + (1 - weight) * scaled([hit.score for hit in hits[: len(own)]])
    order = [hits[i] for i in np.argsort(-mixed, kind="stable")] + list(hits[len(own) :])
    return list(dict.fromkeys(hit.citation.document for hit in order))[:10]


def questions(count: int) -> Collection:
    """Public questions, each with the one paragraph that is known to answer it, among the paragraphs of all of them."""
    kept = [row for row in [*_prompted(), *(row for some in _qed().values() for row in some)] if row["answers"]]
    kept = [row for row in kept if len(row["context"]) < 3000]  # plots of films are long, and hardly any answers
    kept = random.Random(SEED).sample(kept, min(count, len(kept)))
    contexts = {context: f"p{n}" for n, context in enumerate(dict.fromkeys(row["context"] for row in kept))}
    documents = [Document(name, name, "", context) for context, name in contexts.items()]
    return Collection(documents, [row["question"] for row in kept], [{contexts[row["context"]]: 1.0} for row in kept])


def learned(
    ws: Workspace, embedder: Embedder, count: int, heldout: int, pages: int
) -> tuple[list[Row], HybridIndex, Collection]:
    """Rows to learn from, and the index and questions that the weight is chosen on."""
    asked = questions(count + heldout)
    index = opened(ws, asked.documents, "questions", embedder)
    pairs = [Answered(q, next(iter(right))) for q, right in zip(asked.questions, asked.relevances, strict=True)]
    made = list(rows(index, pairs[heldout:], negatives=4, seed=SEED))
    if pages:
        manual = opened(ws, technical(data_folder(), pages), "technical", embedder)
        itself = list(self_asked(manual.passages(), seed=SEED))
        made += rows(manual, random.Random(SEED).sample(itself, min(count // 2, len(itself))), negatives=4, seed=SEED)
    random.Random(SEED).shuffle(made)
    return made, index, Collection((), asked.questions[:heldout], asked.relevances[:heldout])


def trained(ws: Workspace, made: Sequence[Row], folder: Path, minutes: float) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    asked = {
        "data.dataset": str(path), "model.context": 160, "data.overlong": "cut", "data.heldout": 0.02,
        "schedule.minutes": minutes, "run.name": "ranker",
    }  # fmt: skip
    return tune(ws, TUNING.read("rank", asked)).path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="of training")
    parser.add_argument("--questions", type=int, default=3000, help="public questions that are learned from")
    parser.add_argument("--pages", type=int, default=300, help="technical documents that ask themselves")
    parser.add_argument("--heldout", type=int, default=150, help="questions that the weight is chosen on")
    parser.add_argument("--depth", type=int, default=20, help="candidates that are reranked")
    parser.add_argument("--model", help="measure this reranker instead of training one")
    parser.add_argument("--keep", type=Path, help="a new folder for the trained reranker")
    parser.add_argument("--workspace", type=Path, help="keep indexes and vectors here (default: a temporary folder)")
    args = parser.parse_args()
    if not (data_folder() / "cranfield").is_dir():
        print(f"skipped: no collections in {data_folder()}; set WINDLASS_DATA", file=sys.stderr)
        print(json.dumps({"bench": "rerank", "ratio": None, "against": "the default search", "skipped": "no data"}))
        return 0
    from windlass.serve.encoders.embedder import MiniLM

    embedder, began = MiniLM.load(), time.perf_counter()
    result: dict[str, Any] = {"bench": "rerank", "ratio": None, "against": "the default search, Cranfield"}
    with tempfile.TemporaryDirectory() as folder, Workspace(args.workspace or Path(folder)) as ws:
        learning = (0, 0) if args.model else (args.questions, args.pages)
        made, index, held = learned(ws, embedder, learning[0], args.heldout, learning[1])
        name = args.model
        if name is None:
            print(f"{len(made):,} rows after {time.perf_counter() - began:.0f} s", flush=True)
            model = trained(ws, made, Path(folder), args.minutes)
            if args.keep is not None:
                shutil.copytree(model, args.keep)
            name = str(args.keep or model)
        reranker = load_reranker(ws, name)
        own = judged(index, held, reranker, args.depth)
        by_weight = {weight: float(own.ndcg(weight).mean()) for weight in WEIGHTS}
        weight = max(by_weight, key=lambda one: by_weight[one])
        print("questions held out, nDCG@10 by weight: " + ", ".join(f"{w:g} {v:.3f}" for w, v in by_weight.items()))
        result |= {"weight": weight, "reranker": reranker.name, "held_out": by_weight}
        for collection, load in (("cranfield", cranfield), ("cacm", cacm)):
            read = load(data_folder())
            found = judged(opened(ws, read.documents, collection, embedder), read, reranker, args.depth)
            plain, better, alone = found.ndcg(0.0), found.ndcg(weight), found.ndcg(1.0)
            gain = paired_difference(plain, better)
            print(
                f"{collection}: default search {plain.mean():.3f}, reranked {better.mean():.3f} "
                f"({gain.difference} better), by the reranker alone {alone.mean():.3f}",
                flush=True,
            )
            result[collection] = {
                "hybrid": round(float(plain.mean()), 4),
                "rerank": round(float(better.mean()), 4),
                "low": round(gain.difference.low, 4),
                "high": round(gain.difference.high, 4),
                "alone": round(float(alone.mean()), 4),
            }
            if collection == "cranfield":
                result["ratio"] = round(float(better.mean() / plain.mean()), 4)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
