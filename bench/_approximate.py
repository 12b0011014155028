"""What looking at fewer vectors costs and saves: `python -m bench._approximate [--vectors N] [--small]`.

The same index four times: every vector looked at; candidates chosen by vectors in bytes (`--quantised int8`), by their
signs (`binary`), by cells (`windlass index ann`). They take turns, question by question: by vector alone, and as a
search is by default, with words; all passages, half of them, a tenth. The vectors are those of `_rag_data`: some
thousands are MiniLM's own, the others lie around those of their neighbours. The questions are some words of a passage,
embedded by MiniLM; their words are given to BM25.

`recall`: of the ten that are found by looking at every vector, how many are found. `ratio`: the median of the time
beside that of looking at every vector, in pairs. `bytes`: a vector, on the disk, beside its float32. A search that
returns fewer than ten counts as one that under-returns. The bar: in the worst of the cases a recall of 0.95, by signs
of 0.9.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench._rag_data import Passages, passages

from windlass.apply.rag.indexes.fusion import SearchSettings
from windlass.apply.rag.indexes.live import EmbeddedIndex, open_live
from windlass.core.documents import Document, Entry, Passage
from windlass.serve.encoders.embedder import MiniLM

K, BATCH = 10, 5_000
RECALL = {"int8": 0.95, "binary": 0.9, "cells": 0.95}
WHERE: dict[str, dict[str, Any] | None] = {"all": None, "half": {"half": 0}, "a tenth": {"tenth": 3}}
SETTINGS = {"vectors": SearchSettings(dense=1.0), "and words": SearchSettings()}
FORMS: dict[str, Callable[[EmbeddedIndex], object]] = {
    "exact": lambda index: None,
    "int8": lambda index: index.requantise("int8"),
    "binary": lambda index: index.requantise("binary"),
    "cells": lambda index: index.make_cells(least=1),
}


def made(data: Passages, folder: Path) -> Path:
    index = open_live(folder, MiniLM.load())
    for batch in _entries(data):
        index.put(batch)
    index.close()
    return folder


def _entries(data: Passages) -> Iterator[list[Entry]]:
    for first in range(0, len(data.texts), BATCH):
        batch = []
        for i in range(first, min(first + BATCH, len(data.texts))):
            name, text = f"d{i}", data.texts[i]
            document = Document(name, name, "", text, metadata={"half": i % 2, "tenth": i % 10})
            passage = Passage(name, "", "", 0, len(text), text)
            batch.append(Entry(document, "", [passage], data.vectors[i : i + 1]))
        yield batch


def measured(data: Passages, at: Path) -> dict[str, Any]:
    indexes, seconds, size = {}, {}, {}
    plain = made(data, at / "exact")
    for form, change in FORMS.items():
        if form != "exact":
            shutil.copytree(plain, at / form)
        indexes[form] = open_live(at / form, MiniLM.load())
        began = time.perf_counter()
        change(indexes[form])
        seconds[form] = time.perf_counter() - began
        own = sum(path.stat().st_size for path in (at / form).iterdir() if path.suffix in (".ivf", ".int8", ".binary"))
        size[form] = own / len(data.texts)
        print(f"{form}: {seconds[form]:.1f} s", file=sys.stderr)
    found: dict[str, Any] = {form: {"bytes": round(size[form], 1), "made_s": round(seconds[form], 1)} for form in FORMS}
    under = 0
    for way, settings in SETTINGS.items():
        searched = {form: index.with_settings(settings) for form, index in indexes.items()}
        for case, where in WHERE.items():
            took: dict[str, list[float]] = {form: [] for form in FORMS}
            same = dict.fromkeys(FORMS, 0)
            for number, question in enumerate(data.questions):
                hits = {}
                for form, index in searched.items():
                    began = time.perf_counter()
                    hits[form] = index.search(question, K, where, vector=data.question_vectors[number])
                    took[form].append(time.perf_counter() - began)
                    under += len(hits[form]) < K
                expected = {hit.passage for hit in hits["exact"]}
                for form in FORMS:
                    same[form] += len(expected & {hit.passage for hit in hits[form]})
            warm = {form: np.array(times[len(times) // 5 :]) * 1000 for form, times in took.items()}
            for form in FORMS:
                found[form][f"{way}, {case}"] = {
                    "recall": round(same[form] / (K * len(data.questions)), 4),
                    "ms": round(float(np.median(warm[form])), 3),
                    "ratio": round(float(np.median(warm[form] / warm["exact"])), 3),
                }
    for index in indexes.values():
        index.close()
    return {"forms": found, "under_returned": under}


def shown(forms: dict[str, Any]) -> str:
    cases = [key for key in forms["exact"] if isinstance(forms["exact"][key], dict)]
    lines = [f"{'':24}" + "".join(f"{form:>26}" for form in forms)]
    lines.append(f"{'bytes a vector':24}" + "".join(f"{found['bytes']:26.0f}" for found in forms.values()))
    lines.append(f"{'made in, s':24}" + "".join(f"{found['made_s']:26.1f}" for found in forms.values()))
    for case in cases:
        cells = (f"{f[case]['recall']:.3f}{f[case]['ms']:9.2f} ms{f[case]['ratio']:7.2f}" for f in forms.values())
        lines.append(f"{case:24}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--read", type=int, default=4_000, help="passages whose vectors are MiniLM's own")
    parser.add_argument("--small", action="store_true", help="10,000 vectors, to see that it works")
    args = parser.parse_args()
    if args.small:
        args.vectors, args.questions, args.read = 10_000, 40, 200
    data = passages(args.vectors, args.questions, args.read)
    with tempfile.TemporaryDirectory() as folder:
        said = measured(data, Path(folder))
    forms = said["forms"]
    print(f"{args.vectors:,} vectors: recall@{K}, milliseconds, ratio to exact\n{shown(forms)}")
    cases = [key for key in forms["exact"] if isinstance(forms["exact"][key], dict)]
    worst = {form: min(forms[form][case]["recall"] for case in cases) for form in RECALL}
    holds = all(worst[form] >= RECALL[form] for form in RECALL) and said["under_returned"] == 0
    print(json.dumps({"bench": "approximate", "vectors": args.vectors, "recall": worst, **said, "holds": holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
