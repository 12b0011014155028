"""Abstention and quoting without a language model, on English XQuAD.

The paragraphs of a third of the articles are withheld, so that their questions have no answer in the index. The rule
is fitted on the questions of one half of the articles and measured on the other half, both ways round; beside it stand
the default rule and each feature alone. Of the answerable questions, how often the first quotation holds the gold
answer, and how often the same number of characters from the start of the best passage does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench.retrieval import corpus_of, data_folder, read

from windlass.apply.rag.answers.abstention import FEATURES, AbstentionRule, evidence, fit
from windlass.apply.rag.answers.quoting import QuoteSettings, quote
from windlass.apply.rag.index import HybridIndex, build_index
from windlass.core.documents import Document
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.selective import auroc


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="keep indexes and vectors here (default: a temporary folder)")
    parser.add_argument("--quoted", type=int, default=200, help="questions to quote for (default: 200)")
    arguments = parser.parse_args()
    path = data_folder().parent / "qa" / "xquad" / "xquad.en.json.gz"
    if not path.is_file():
        print(f"skipped: no {path}; set WINDLASS_DATA", file=sys.stderr)
        print(
            json.dumps({"bench": "abstention", "ratio": None, "against": "best single feature", "skipped": "no data"})
        )
        return 0
    from windlass.serve.encoders.embedder import MiniLM

    articles = json.loads(read(path))["data"]
    documents, questions, article_of, golds = [], [], [], []
    for a, article in enumerate(articles):
        for p, paragraph in enumerate(article["paragraphs"]):
            if a % 3:
                documents.append(Document(f"{a}-{p}", f"{a}-{p}", "", paragraph["context"]))
            for qa in paragraph["qas"]:
                questions.append(qa["question"])
                article_of.append(a)
                golds.append({answer["text"] for answer in qa["answers"]})
    article = np.array(article_of)
    answerable = article % 3 > 0
    with tempfile.TemporaryDirectory() as temporary, Workspace(arguments.workspace or Path(temporary)) as ws:
        embedder = MiniLM.load()
        index = HybridIndex.open(build_index(ws, corpus_of(ws, documents, "xquad-part"), embedder, name="xa"), embedder)
        vectors = index.embed(questions).vectors
        features = evidence(index, questions, vectors=vectors)
        half = (article // 3) % 2 == 0
        fitted, decided = np.zeros(len(questions)), np.zeros(len(questions), bool)
        for train in (half, ~half):
            rule = fit(features[train], answerable[train].tolist())
            fitted[~train] = rule.probabilities(features[~train])
            decided[~train] = fitted[~train] >= rule.threshold
        whole = fit(features, answerable.tolist())
        default = AbstentionRule().probabilities(features)
        alone = {name: auroc(answerable, features[:, i]) for i, name in enumerate(FEATURES)}
        answers = decided[answerable].mean(), (~decided[~answerable]).mean()
        sizes = f"{len(documents)} paragraphs, {len(index)} passages"
        print(f"{len(questions)} questions, {answerable.sum()} answerable; {sizes}")
        print(f"  fitted rule, other half    AUROC {auroc(answerable, fitted):.3f}")
        print(f"  default rule               AUROC {auroc(answerable, default):.3f}")
        for name, value in alone.items():
            print(f"  {name:<26} AUROC {value:.3f}")
        print(f"  fitted: answers {answers[0]:.1%} of the answerable, abstains from {answers[1]:.1%} of the others")
        kept = default >= AbstentionRule().threshold
        print(f"  default: {kept[answerable].mean():.1%} and {(~kept[~answerable]).mean():.1%}")
        print(f"  fitted on all: {whole}")
        held = start = width = 0
        sample = np.flatnonzero(answerable)[:: max(1, int(answerable.sum()) // arguments.quoted)]
        for i in sample:
            hits = index.search_many([questions[i]], 6, vectors=vectors[i : i + 1])[0]
            citations, _ = quote(index, questions[i], hits, QuoteSettings(), vectors[i])
            first = citations[0].quote
            width += len(first)
            held += any(gold in first for gold in golds[i])
            start += any(gold in hits[0].citation.quote[: len(first)] for gold in golds[i])
        n = len(sample)
        shares = f"{held / n:.1%}; as much of the passage's start: {start / n:.1%}"
        print(f"  the first quotation ({width / n:.0f} characters) holds the gold answer: {shares}")
    ratio = auroc(answerable, fitted) / max(alone.values())
    print(
        json.dumps(
            {
                "bench": "abstention",
                "ratio": round(ratio, 4),
                "against": "best single feature, AUROC",
                "auroc": round(auroc(answerable, fitted), 4),
                "auroc_default": round(auroc(answerable, default), 4),
                "first_quotation_holds_answer": round(held / n, 4),
                "start_of_passage_holds_answer": round(start / n, 4),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
