"""Ways of cutting documents, by the share of the reference passages' characters that a search over them gives.

Each way has its own hybrid index over the same pages. A reader may read so many tokens of what was found, the last
passage cut where they end: so ways that make passages of different sizes are compared at equal cost. The baseline is
fixed windows of the default's mean length, without overlap. Intervals are paired, over the questions.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from windlass.apply.rag.chunking import RECIPES, ChunkSettings
from windlass.apply.rag.index import HybridIndex
from windlass.core.documents import Document
from windlass.core.protocols import LateEmbedder
from windlass.core.values import Citation
from windlass.evaluate.metrics.chunking import Overlap, Piece, first, overlap, precision_omega
from windlass.evaluate.statistics.paired import paired_difference

Opened = Callable[[Sequence[Document], ChunkSettings], HybridIndex]
"""An index over documents that are cut like this."""


def chunking(opened: Opened, folder: Path, embedder: LateEmbedder, budget: int) -> dict[str, Any]:
    """Prints a line for each way of cutting; returns the same figures."""
    pages = {p.name.removesuffix(".md.gz"): _read(p) for p in sorted((folder / "corpora").glob("*.gz"))}
    rows = list(csv.DictReader(_read(folder / "questions.csv.gz").splitlines(keepends=True)))
    rows = [row for row in rows if row["corpus_id"] in pages]
    questions = [row["question"] for row in rows]
    references = [
        [(row["corpus_id"], int(r["start_index"]), int(r["end_index"])) for r in json.loads(row["references"])]
        for row in rows
    ]
    documents = [Document(name, name, name, text, "markdown") for name, text in pages.items()]
    tokens = {name: embedder.token_starts(text) for name, text in pages.items()}
    vectors = embedder.embed(questions, "query").vectors

    def measured(settings: ChunkSettings) -> tuple[list[Overlap], float, int]:
        index = opened(documents, settings)
        ranked = [
            [_piece(hit.citation) for hit in hits]
            for hits in index.search_many(questions, min(len(index), 8 + budget // 8), vectors=vectors)
        ]
        everything = [_piece(citation) for citation in index.at.citations(range(1, len(index) + 1))]
        omega = [precision_omega([piece for piece in everything if piece[0] == r[0][0]], r) for r in references]
        scores = [overlap(first(found, budget, tokens), wanted) for found, wanted in zip(ranked, references)]
        return scores, float(np.mean(omega)), len(index)

    ways = {name: settings for name, settings in RECIPES.items() if not settings.written}
    default = measured(ways["structure"])
    width = round(sum(len(text) for text in pages.values()) / default[2])
    plain = ChunkSettings("fixed", target=width, limit=2 * width)
    print(f"\nchunking: {len(rows)} questions, {budget} tokens read; {'':<12}gain in recall over fixed windows")
    print(f"  {'':<22}{'passages':>9}{'recall':>8}{'precision':>11}{'IoU':>7}{'omega':>7}")
    result: dict[str, Any] = {"questions": len(rows), "tokens_read": budget}
    baseline = measured(plain)
    for name, settings in {f"windows of {width}": plain, **ways}.items():
        known = {plain: baseline, ways["structure"]: default}
        scores, omega, passages = known[settings] if settings in known else measured(settings)
        recall, precision, iou = (
            np.array([getattr(score, which) for score in scores]) for which in ("recall", "precision", "iou")
        )
        gain = paired_difference([score.recall for score in baseline[0]], recall)
        shown = "" if scores is baseline[0] else f"   {gain.difference}  p {gain.p_value:.2g}"
        print(
            f"  {name:<22}{passages:>9}{recall.mean():>8.3f}{precision.mean():>11.3f}{iou.mean():>7.3f}{omega:>7.3f}"
            + shown,
            flush=True,
        )
        result[name] = {
            "recall": round(float(recall.mean()), 4),
            "precision": round(float(precision.mean()), 4),
            "iou": round(float(iou.mean()), 4),
            "precision_omega": round(omega, 4),
            "gain": [round(x, 4) for x in (gain.difference.estimate, gain.difference.low, gain.difference.high)],
        }
    return result


def _piece(citation: Citation) -> Piece:
    return citation.document, citation.start, citation.end


def _read(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read()
