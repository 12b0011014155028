"""What tuning an extractive reader brings: exact match and F1 on questions of articles that it never saw.

    python -m bench.answering
    python -m bench.answering --workspace .      and keep the reader there, where `windlass ask` finds it

Trains for one epoch on `_answering_data.gaps`, then on `learned`, reads the test questions as retrieval does, from the
stored folder, and compares it with the sentence of the passage that shares most rare words with the question (BM25).
Questions without an answer are right when nothing is said; the threshold for that was chosen on held-out questions of
the training articles. Intervals are bootstrap over passages, 95 %.

Then the whole way: the passages of XQuAD's and QED's test articles are in one index, a third of them left out, and the
assistant searches, reads and decides, beside the best sentence of all by BM25 and beside quoting sentences. Its rule
was fitted on QED's questions, XQuAD's are asked. That F1, as a multiple of the best sentence's, is `ratio`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench._answering_data import SEED, Ranked, Row, gaps, learned, tests
from bench._answering_pipeline import answering, fitted, gathered, indexed

from windlass.apply.rag.sentences import sentence_spans
from windlass.build.adapt.recipe import TUNING
from windlass.build.adapt.tuning import tune
from windlass.core.answers import answer_f1, exact_match
from windlass.core.protocols import Extracting
from windlass.core.tables import table
from windlass.core.workspace import Workspace
from windlass.evaluate.metrics.answers import exact, f1
from windlass.evaluate.metrics.selective import aurc, auroc
from windlass.evaluate.slices import by_slice
from windlass.evaluate.statistics.bootstrap import bootstrap_mean
from windlass.evaluate.statistics.intervals import Interval
from windlass.evaluate.statistics.paired import paired_difference
from windlass.serve.encoders.span_reader import SpanReader

Answering = Callable[[Row], str]


def best_sentence(row: Row) -> str:
    """The baseline, which always says something."""
    context = row["context"]
    sentences = [context[start:stop] for start, stop in sentence_spans(context)]
    return sentences[Ranked(sentences).best(row["question"])[0]] if sentences else ""


def said_by(reader: SpanReader) -> Answering:
    def answer(row: Row) -> str:
        (found,) = reader.find(row["question"], [row["context"]])
        assert found is None or row["context"][found.start :].startswith(found.text)
        return "" if found is None else found.text

    return answer


def judged(answers: Sequence[str], rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Exact match and F1 of each row."""
    right = [[one["text"] for one in row["answers"]] for row in rows]
    return {
        "exact": np.array([exact_match(*pair) for pair in zip(answers, right, strict=True)]),
        "f1": np.array([answer_f1(*pair) for pair in zip(answers, right, strict=True)]),
    }


def compared(name: str, rows: Sequence[Row], contenders: Mapping[str, Answering]) -> list[tuple[str, ...]]:
    """A line for each contender and kind of question."""
    answers = {who: [one(row) for row in rows] for who, one in contenders.items()}
    lines = []
    for kind, keep in (("answered", True), ("unanswerable", False), ("all", None)):
        part = [place for place, row in enumerate(rows) if keep is None or bool(row["answers"]) == keep]
        clusters = [rows[place]["context"] for place in part]
        scores = {
            who: judged([said[place] for place in part], [rows[place] for place in part])
            for who, said in answers.items()
        }
        base = next(iter(scores.values()))["f1"]
        for who, found in scores.items():
            shown = [_interval(values, clusters) for values in found.values()]
            gain = paired_difference(base, found["f1"], clusters)
            beyond = f"{100 * gain.difference.estimate:+.1f}, p {gain.p_value:.2g}" if found["f1"] is not base else ""
            lines.append((name, kind, f"{len(part):,}", who, *shown, beyond))
    return lines


def _interval(values: np.ndarray, clusters: Sequence[Any]) -> str:
    found = bootstrap_mean(values, clusters, seed=SEED)
    return f"{100 * found.estimate:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, help="default: the recipe's")
    parser.add_argument("--model", type=Path, help="measure this folder instead of training one")
    parser.add_argument("--keep", type=Path, help="a new folder for the trained reader")
    parser.add_argument("--workspace", type=Path, help="train it in this workspace; default: a temporary one")
    parser.add_argument("--every", type=int, default=1, help="the whole way: ask every so many of the questions")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Workspace(args.workspace or Path(folder)) as ws:
        model = args.model or _trained(ws, Path(folder), args.epochs)
        if args.keep is not None:
            shutil.copytree(model, args.keep)
        contenders: dict[str, Answering] = {
            "best sentence": best_sentence,
            "reader": said_by(SpanReader.from_folder(model)),
            "reader, always answering": said_by(SpanReader.from_folder(model, threshold=-math.inf)),
        }
        lines = [line for name, rows in tests().items() for line in compared(name, rows, contenders)]
        print(table(("set", "questions", "", "who", "exact match", "F1", "F1 beyond the first"), lines))
        result = whole_way(Path(folder), SpanReader.from_folder(model, threshold=-math.inf), args.every)
    print(json.dumps(result))


def whole_way(folder: Path, reader: Extracting, every: int = 1) -> dict[str, Any]:
    from windlass.serve.encoders.embedder import MiniLM

    learnt, asked = (gathered(name, tests()[name], every) for name in ("QED", "XQuAD"))
    with Workspace(folder / "indexes") as ws:
        index = indexed(ws, (learnt, asked), MiniLM.load())
        rule = fitted(index, learnt, reader)
        said, confidence = answering(index, asked, reader, rule)
    scores = {
        who: {"exact": exact(found, asked.answers), "f1": f1(found, asked.answers)} for who, found in said.items()
    }
    kinds = ["answered" if answers else "unanswerable" for answers in asked.answers]
    base = scores[next(iter(scores))]["f1"]
    lines = []
    for who, found in scores.items():
        shown = {name: by_slice(values, kinds, asked.clusters) for name, values in found.items()}
        gain = paired_difference(base, found["f1"], asked.clusters)
        beyond = f"{100 * gain.difference.estimate:+.1f}, p {gain.p_value:.2g}" if found["f1"] is not base else ""
        silent = f"{100 * sum(not text for text in said[who]) / len(said[who]):.0f} %"
        cells = [
            _percent(shown[name][kind]) for kind in ("all", "answered", "unanswerable") for name in ("exact", "f1")
        ]
        lines.append((who, *cells, silent, beyond))
    kind = ("all: exact", "F1", "answered: exact", "F1", "unanswerable: exact", "F1")
    passages = len(learnt.passages) + len(asked.passages)
    sizes = f"{passages} passages, {len(kinds)} questions, {kinds.count('unanswerable')} without an answer"
    print(f"\nthe whole way, XQuAD: {sizes}")
    print(table(("", *kind, "says nothing", "F1 beyond the first"), lines))
    right = scores["reader, always"]["f1"] >= 0.5
    answerable = np.array([one == "answered" for one in kinds])
    told = {"auroc": auroc(answerable, confidence), "aurc": aurc(confidence, ~(right & answerable))}
    print(f"rule, fitted on QED: {rule}")
    print(f"its confidence: AUROC {told['auroc']:.3f} (is there an answer?), AURC {told['aurc']:.3f}")
    return {
        "bench": "answering",
        "ratio": round(float(scores["reader"]["f1"].mean() / base.mean()), 4),
        "against": "best sentence of all by BM25, F1, XQuAD, retrieval included",
        **{f"{who}, F1": round(float(found["f1"].mean()), 4) for who, found in scores.items()},
        **{name: round(value, 4) for name, value in told.items()},
    }


def _percent(found: Interval) -> str:
    return f"{100 * found.estimate:.1f} ({100 * max(found.low, 0):.1f} to {100 * min(found.high, 1):.1f})"


def _trained(ws: Workspace, folder: Path, epochs: float | None) -> Path:
    began, asked = time.perf_counter(), {"data.epochs": 1.0}
    for name, rows in (("gaps", gaps()), ("questions", learned())):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        found = tune(ws, TUNING.read("reader", {**asked, "data.dataset": str(path)})).path
        print(f"trained on {len(rows):,} {name}, {time.perf_counter() - began:.0f} s in all", flush=True)
        asked = {"model.base": str(found)} | ({} if epochs is None else {"data.epochs": epochs})
    return found


if __name__ == "__main__":
    main()
